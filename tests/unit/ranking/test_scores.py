"""LogME, H-score and the neighbours beside computations of their definitions that share nothing with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from headstart.ranking.hscore import h_score
from headstart.ranking.logme import logme
from headstart.ranking.neighbours import knn_accuracy

SHAPES = pytest.mark.parametrize(("n", "width", "n_classes"), [(30, 5, 2), (40, 8, 3)])


def drawn(n: int, width: int, n_classes: int, apart: float = 1.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = apart * random.normal(size=(n_classes, width))
    scales = np.logspace(-0.5, 0.5, width)
    return (centres[labels] + random.normal(size=(n, width))) * scales + 1, labels


def highest_evidence(features: np.ndarray, target: np.ndarray) -> float:
    """Return the log density of the target under a normal prior of weights and noise, at its highest."""
    inner, identity = features @ features.T, np.eye(len(target))

    def lacking(logs: np.ndarray) -> float:
        of_weights, of_noise = np.exp(logs)
        covariance = inner / of_weights + identity / of_noise
        _, log_determinant = np.linalg.slogdet(2 * np.pi * covariance)
        return float(target @ np.linalg.solve(covariance, target) + log_determinant) / 2

    options = {"xatol": 1e-5, "fatol": 1e-8, "maxiter": 500}
    with threadpool_limits(1):
        return -float(minimize(lacking, np.array([2.0, 2.0]), method="Nelder-Mead", options=options).fun)


@SHAPES
def test_logme_is_the_highest_evidence_of_a_linear_model_of_each_class(n: int, width: int, n_classes: int) -> None:
    features, labels = drawn(n, width, n_classes)
    each = [highest_evidence(features, (labels == label).astype(float)) / n for label in range(n_classes)]
    assert logme(features, labels) == pytest.approx(np.mean(each), abs=1e-5)


@SHAPES
def test_h_score_is_the_trace_of_its_definition(n: int, width: int, n_classes: int) -> None:
    features, labels = drawn(n, width, n_classes)
    means = np.array([features[labels == label].mean(axis=0) for label in labels])
    between = np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.pinv(np.cov(features, rowvar=False, bias=True)) @ between)
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_neighbours_vote_as_counted_by_hand(seed: int, k: int, n_classes: int) -> None:
    features, labels = drawn(24, 4, n_classes, apart=0.7, seed=seed)
    groups = np.random.default_rng(seed).integers(0, 10, len(labels))
    centred = features - features.mean(axis=0)
    n_right = 0
    for row in range(len(labels)):
        others = [other for other in range(len(labels)) if groups[other] != groups[row]]
        cosine = {
            other: centred[row] @ centred[other] / np.linalg.norm(centred[row]) / np.linalg.norm(centred[other])
            for other in others
        }
        nearest = sorted(others, key=lambda other: -cosine[other])[:k]
        votes = [[labels[other] for other in nearest].count(label) for label in range(n_classes)]
        best = [label for label in range(n_classes) if votes[label] == max(votes)]
        winner = next(labels[other] for other in nearest if labels[other] in best)
        n_right += winner == labels[row]
    assert knn_accuracy(features, labels, groups, k) == n_right / len(labels)


def test_all_three_prefer_features_that_separate_the_classes() -> None:
    near, labels = drawn(200, 8, 4, apart=0.3)
    far, _ = drawn(200, 8, 4, apart=2.0)
    groups = np.arange(200)
    assert logme(far, labels) > logme(near, labels)
    assert h_score(far, labels) > h_score(near, labels)
    assert knn_accuracy(far, labels, groups) > knn_accuracy(near, labels, groups)


def test_more_features_than_images_and_features_that_never_vary_are_no_obstacle() -> None:
    features, labels = drawn(30, 60, 3)
    features[:, :5] = 2.0
    assert np.isfinite(logme(features, labels))
    assert h_score(features, labels) == pytest.approx(2)
    assert np.isfinite(logme(np.zeros((30, 4)), labels))
    assert h_score(np.zeros((30, 4)), labels) == 0


def test_copies_in_an_images_own_group_are_no_neighbours_of_it() -> None:
    features, _ = drawn(40, 6, 2)
    doubled = np.concatenate([features, features])
    labels = np.tile(np.random.default_rng(3).integers(0, 2, 40), 2)  # what nothing but a copy can tell
    apart = knn_accuracy(doubled, labels, np.arange(80), k=1)
    together = knn_accuracy(doubled, labels, np.tile(np.arange(40), 2), k=1)
    assert apart == 1.0
    assert together < 0.8
