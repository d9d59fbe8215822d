from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn import metrics

from headstart.heads.calibration import (
    HIGHEST,
    LOWEST,
    Calibration,
    by_fold,
    calibrate,
    fit_temperature,
    log_loss,
    losses,
)


def drawn(n: int, n_classes: int, spread: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [N, C] and labels [N] that are drawn by their softmax."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(n, n_classes)) * spread
    labels = (random.random((n, 1)) > softmax(scores, axis=1).cumsum(1)).sum(1).clip(0, n_classes - 1)
    return scores, labels


def test_the_temperature_undoes_a_known_overconfidence() -> None:
    scores, labels = drawn(20_000, 4)
    assert fit_temperature(scores * 3, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(scores / 2, labels) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("caution", [0.0, 1.0])
@pytest.mark.parametrize("factor", [0.1, 1.0, 8.0])
@pytest.mark.parametrize(("n", "n_classes"), [(30, 2), (200, 5), (40, 300)])
def test_it_is_where_the_log_loss_is_least(n: int, n_classes: int, factor: float, caution: float) -> None:
    scores, labels = drawn(n, n_classes, seed=n)
    scores *= factor
    bounds = np.log([LOWEST, HIGHEST])

    def loss(log_t: float) -> float:
        return log_loss(scores / np.exp(log_t), labels) + caution * log_t**2 / n

    found, expected = fit_temperature(scores, labels, caution), minimize_scalar(loss, bounds=bounds)
    assert LOWEST <= found <= HIGHEST
    assert loss(float(np.log(found))) == pytest.approx(float(expected.fun), abs=1e-6)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_scores_of_any_size_have_a_temperature_within_its_bounds(factor: float) -> None:
    scores, labels = drawn(50, 3)
    assert LOWEST * 0.99 <= fit_temperature(scores * factor, labels) <= HIGHEST * 1.01
    assert LOWEST <= fit_temperature(np.zeros((50, 3)), labels) <= HIGHEST


def test_scores_that_are_always_wrong_have_the_highest_temperature() -> None:
    labels = np.arange(30) % 3
    assert fit_temperature(-5.0 * np.eye(3)[labels], labels) == pytest.approx(20, rel=1e-3)


def test_a_few_images_that_are_all_right_do_not_make_a_model_sure_of_everything() -> None:
    labels = np.arange(9) % 3
    scores = 2.0 * np.eye(3)[labels]
    assert fit_temperature(scores, labels) < 0.06
    assert 0.4 < fit_temperature(scores, labels, caution=1.0) < 1


FOLD_OF = np.arange(600) % 5


def calibrated(scores: np.ndarray, labels: np.ndarray) -> Calibration:
    return calibrate(scores, labels, by_fold(scores, labels, FOLD_OF[: len(labels)]))


def test_a_temperature_that_helps_on_other_images_ships() -> None:
    scores, labels = drawn(600, 4)
    found = calibrated(scores * 3, labels)
    assert found.outcome == "fitted"
    assert found.temperature == found.fitted == pytest.approx(3, rel=0.2)
    assert found.log_loss_without == pytest.approx(log_loss(scores * 3, labels))
    assert log_loss(scores * 3 / found.fitted, labels) < found.log_loss_with < found.log_loss_without


def test_a_temperature_at_its_bound_never_ships() -> None:
    scores, labels = drawn(600, 4)
    for wild in (1000 * scores, 1e4 * scores):
        found = calibrated(wild, labels)
        assert found.outcome == "at its bound"
        assert found.fitted > 19
        assert found.temperature == 1
    assert calibrated(12 * scores, labels).outcome == "fitted"


def test_a_temperature_that_is_worse_than_none_on_other_images_does_not_ship() -> None:
    """The images of a fold are all right or all wrong, so each fold misleads the others."""
    labels = np.arange(40) % 2
    scores = 2.0 * np.eye(2)[labels]
    scores[:20] *= -0.1
    found = calibrate(scores, labels, by_fold(scores, labels, np.arange(40) // 20))
    assert found.outcome == "no better than none"
    assert found.log_loss_with > found.log_loss_without
    assert found.temperature == 1 != found.fitted


@pytest.mark.parametrize("n", [6, 60, 600])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
def test_images_that_are_all_right_never_drive_it_to_its_bound(n: int, size: float) -> None:
    labels = np.arange(n) % 3
    found = calibrated(size * np.eye(3)[labels], labels)
    assert found.outcome == "fitted"
    confidence = softmax(size * np.eye(3)[labels] / found.temperature, axis=1).max(1)
    assert confidence.max() <= max(1 - 1e-5, softmax(size * np.eye(3)[0]).max())


def test_one_fold_is_tried_on_itself() -> None:
    scores, labels = drawn(50, 3)
    trials = list(by_fold(scores, labels, np.zeros(50, int)))
    assert [[len(each) for each in trial] for trial in trials] == [[50, 50, 50, 50]]


def test_caution_fades_with_the_number_of_images() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 20_000)
    scores = 6 * (np.eye(3)[labels] + random.normal(size=(20_000, 3)))
    assert fit_temperature(scores, labels, caution=1.0) == pytest.approx(fit_temperature(scores, labels), rel=1e-3)


def test_the_log_loss_is_that_of_scikit_learn() -> None:
    scores, labels = drawn(100, 4)
    expected = metrics.log_loss(labels, softmax(scores, axis=1), labels=range(4))
    assert log_loss(scores, labels) == pytest.approx(expected)
    assert losses(scores, labels).shape == (100,)
