from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics

from headstart.base.intervals import wilson
from headstart.heads.criteria import CRITERIA


def drawn(n: int = 300, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [N, 5] and labels [N] of unlike frequency; the last class has no image, but is answered."""
    random = np.random.default_rng(seed)
    labels = random.choice(4, n, p=[0.7, 0.2, 0.07, 0.03])
    return random.normal(size=(n, 5)) + skill * np.eye(5)[labels], labels


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_of_each_is_the_figure_of_scikit_learn(seed: int) -> None:
    scores, labels = drawn(seed=seed)
    calls, there = scores.argmax(1), np.unique(labels)
    expected = {
        "log_loss": metrics.log_loss(labels, softmax(scores, axis=1), labels=range(5)),
        "accuracy": 1 - metrics.accuracy_score(labels, calls),
        "balanced_accuracy": 1 - metrics.recall_score(labels, calls, labels=there, average="macro"),
        "macro_f1": 1 - metrics.f1_score(labels, calls, labels=there, average="macro", zero_division=0),
    }
    found = {name: float(criterion(scores, labels).mean()) for name, criterion in CRITERIA.items()}
    assert found == pytest.approx(expected)


def test_balanced_accuracy_is_that_of_scikit_learn_where_every_answer_is_a_class() -> None:
    scores, labels = drawn()
    expected = metrics.balanced_accuracy_score(labels, scores[:, :4].argmax(1))
    assert 1 - CRITERIA["balanced_accuracy"](scores[:, :4], labels).mean() == pytest.approx(expected)


@pytest.mark.parametrize("name", CRITERIA)
def test_each_has_a_value_an_image_and_is_zero_where_all_are_right_and_sure(name: str) -> None:
    labels = np.arange(40) % 4
    values = CRITERIA[name](100.0 * np.eye(4)[labels], labels)
    assert values.shape == (40,)
    assert np.abs(values).max() < 1e-9


@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
def test_the_spread_of_an_images_values_is_that_of_the_figure(name: str) -> None:
    figures, errors = [], []
    for seed in range(200):
        scores, labels = drawn(800, seed)
        values = CRITERIA[name](scores, labels)
        figures.append(values.mean())
        errors.append(values.std() / len(values) ** 0.5)
    assert np.mean(errors) == pytest.approx(np.std(figures), rel=0.2)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 8), (290, 300), (1, 1)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    found = wilson(right / n, n)
    assert found == pytest.approx((expected.low, expected.high))
    assert found.low < found.high
