"""Each kind is held to scikit-learn's solution of the same problem."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from headstart.heads import knn, lda, prototype, ridge, softmax, svm
from headstart.heads.contract import Training
from headstart.heads.linear import Linear
from tests.support.heads import clusters, path, probabilities, source_of

RIDGE_SCALE = 10  # of our scores, which are targets of 0 and 1 otherwise
MANY, FEW = (400, 4, 12), (90, 3, 200)  # images, classes and features
EACH_SHAPE = pytest.mark.parametrize("shape", [MANY, FEW], ids=["more rows", "more features"])
EACH_PASS = pytest.mark.parametrize("hold", [True, False], ids=["held", "read again"])


def standardised(features: np.ndarray) -> np.ndarray:
    """Return what our kinds make of features before they fit, by scikit-learn in float64."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    return np.asarray((features - scaler.mean_) / scaler.scale_)


def weights_on_standardised(head: object, features: np.ndarray) -> np.ndarray:
    """Return float64 [D, C]: the weights that a linear head has on standardised features."""
    assert isinstance(head, Linear)
    return np.asarray(head.weight * features.std(0, dtype=np.float64)[:, None])


@EACH_SHAPE
@EACH_PASS
@pytest.mark.parametrize("strength", [10.0, 1.0, 0.1, 1e-3])
def test_softmax_is_logistic_regression(strength: float, hold: bool, shape: tuple[int, int, int]) -> None:
    features, labels = clusters(*shape)
    (head,) = path(softmax, source_of(features, labels), [strength], hold=hold)
    reference = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-8, max_iter=5000)
    expected = reference.fit(standardised(features), labels).predict_proba(standardised(features))
    assert np.abs(probabilities(head, features) - expected).max() < 1e-3


def test_softmax_with_class_weights_is_weighted_logistic_regression() -> None:
    features, labels = clusters()
    weights = np.array([1.0, 5, 1, 0.5])
    (head,) = path(softmax, source_of(features, labels, class_weights=weights), [0.1])
    each = weights[labels] / weights[labels].mean()
    scaled = StandardScaler().fit(features.astype(np.float64), sample_weight=each).transform(features)
    reference = LogisticRegression(C=1 / (0.1 * len(labels)), tol=1e-8, max_iter=5000).fit(scaled, labels, each)
    assert np.abs(probabilities(head, features) - reference.predict_proba(scaled)).max() < 1e-3


def test_softmax_with_smoothed_labels_is_logistic_regression_on_every_label_of_each_row_by_its_share() -> None:
    features, labels = clusters()
    (head,) = path(softmax, source_of(features, labels), [0.01], training=Training(label_smoothing=0.2))
    shares = (0.8 * np.eye(4)[labels] + 0.2 / 4).ravel()
    reference = LogisticRegression(C=1 / (0.01 * len(labels)), tol=1e-8, max_iter=5000)
    scaled = standardised(features)
    reference.fit(np.repeat(scaled, 4, axis=0), np.tile(np.arange(4), len(labels)), shares)
    assert np.abs(probabilities(head, features) - reference.predict_proba(scaled)).max() < 1e-3


def test_softmax_of_several_blocks_is_logistic_regression() -> None:
    features, labels = clusters(5000, 3)
    (head,) = path(softmax, source_of(features, labels), [1e-2], hold=False)
    scaled = standardised(features)
    reference = LogisticRegression(C=1 / (1e-2 * len(labels)), tol=1e-8, max_iter=5000).fit(scaled, labels)
    assert np.abs(probabilities(head, features) - reference.predict_proba(scaled)).max() < 1e-3


def svm_objective(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray, strength: float) -> float:
    side = np.where(np.eye(scores.shape[1])[labels] > 0, 1, -1)
    loss = np.square(np.maximum(1 - side * scores, 0)).sum(1).mean()
    return float(loss + strength / 2 * np.square(weights).sum())


def liblinear(features: np.ndarray, labels: np.ndarray, strength: float) -> LinearSVC:
    """Return liblinear's solution. Its bias is penalised, but next to nothing where the column of ones is so large."""
    penalty = 1 / (strength * len(labels))
    svc = LinearSVC(C=penalty, loss="squared_hinge", dual=False, tol=1e-9, intercept_scaling=1000, max_iter=20_000)
    return svc.fit(standardised(features), labels)


@EACH_PASS
@pytest.mark.parametrize(
    ("shape", "strength", "within"),
    [(MANY, 10.0, 1e-3), (MANY, 0.1, 2e-3), (MANY, 1e-3, 1e-2), (FEW, 10.0, 1e-3), (FEW, 1.0, 5e-3)],
    ids=str,
)
def test_svm_is_liblinears(shape: tuple[int, int, int], strength: float, within: float, hold: bool) -> None:
    features, labels = clusters(*shape)
    (head,) = path(svm, source_of(features, labels), [strength], hold=hold)
    reference = liblinear(features, labels, strength)
    expected = reference.decision_function(standardised(features))
    assert np.abs(head.scores(features) - expected).max() < within
    found = svm_objective(head.scores(features), labels, weights_on_standardised(head, features), strength)
    assert found == pytest.approx(svm_objective(expected, labels, reference.coef_, strength), rel=1e-5)


@EACH_SHAPE
@EACH_PASS
@pytest.mark.parametrize("strength", [10.0, 0.1, 1e-3])
def test_ridge_is_ridge_on_one_hot_targets(strength: float, hold: bool, shape: tuple[int, int, int]) -> None:
    features, labels = clusters(*shape)
    scaled = standardised(features)
    (head,) = path(ridge, source_of(features, labels), [strength], hold=hold)
    reference = Ridge(alpha=strength * len(labels)).fit(scaled, np.eye(shape[1])[labels])
    assert np.abs(head.scores(features) / RIDGE_SCALE - reference.predict(scaled)).max() < 1e-5
    apart = weights_on_standardised(head, features) / RIDGE_SCALE - reference.coef_.T
    assert np.abs(apart).max() < 1e-4  # which leaves no trace in the scores: along axes in which rows do not vary


@EACH_SHAPE
@EACH_PASS
def test_lda_is_that_of_the_shrinkage_of_ledoit_and_wolf(hold: bool, shape: tuple[int, int, int]) -> None:
    features, labels = clusters(*shape)
    labels = np.where(np.arange(len(labels)) < len(labels) // 4, 0, labels)  # classes of unlike size
    scaled = standardised(features)
    means = np.array([scaled[labels == label].mean(0) for label in range(shape[1])])
    shrinkage = ledoit_wolf_shrinkage(scaled - means[labels], assume_centered=True)
    assert 0.01 < shrinkage < 0.99
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(scaled, labels)
    (head,) = path(lda, source_of(features, labels), (0.0,), hold=hold)
    assert np.abs(weights_on_standardised(head, features) - reference.coef_.T).max() < 2e-4
    assert np.abs(head.scores(features) - reference.decision_function(scaled)).max() < 1e-3


@EACH_SHAPE
@EACH_PASS
@pytest.mark.parametrize("share", [0.9, 0.2])
def test_lda_is_that_of_scikit_learn_for_a_given_shrinkage(
    share: float, hold: bool, shape: tuple[int, int, int]
) -> None:
    features, labels = clusters(*shape)
    scaled = standardised(features)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(scaled, labels)
    (head,) = path(lda, source_of(features, labels), (share,), hold=hold)
    assert np.abs(weights_on_standardised(head, features) - reference.coef_.T).max() < 2e-4
    assert np.allclose(head.scores(features), reference.decision_function(scaled), rtol=1e-3, atol=5e-3)


@EACH_SHAPE
@EACH_PASS
def test_prototype_answers_the_class_whose_mean_is_nearest_by_the_cosine(
    hold: bool, shape: tuple[int, int, int]
) -> None:
    features, labels = clusters(*shape)
    scaled = standardised(features)
    means = NearestCentroid().fit(scaled, labels).centroids_
    expected = (scaled @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T).argmax(1)
    (head,) = path(prototype, source_of(features, labels), hold=hold)
    assert np.array_equal(head.scores(features).argmax(1), expected)


@EACH_SHAPE
@EACH_PASS
@pytest.mark.parametrize("k", [1, 3, 9, 25])
def test_neighbours_have_the_votes_that_scikit_learn_counts(k: int, hold: bool, shape: tuple[int, int, int]) -> None:
    features, labels = clusters(*shape)
    asked, _ = clusters(*shape, seed=1)
    (head,) = path(knn, source_of(features, labels), [k], hold=hold)
    scaler = StandardScaler().fit(features.astype(np.float64))
    reference = KNeighborsClassifier(k, metric="cosine").fit(scaler.transform(features), labels)
    votes = np.exp(head.scores(asked)) - 1 / shape[1]
    expected = k * reference.predict_proba(scaler.transform(asked))
    assert (np.abs(votes - expected).max(1) < 1e-6).mean() >= 0.99
