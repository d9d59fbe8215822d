from __future__ import annotations

import numpy as np
import pytest

from headstart.base.intervals import wilson
from headstart.evaluation.elsewhere import accuracy, compared, prediction_powered
from headstart.evaluation.predictions import Answers


def drawn(seed: int, n: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Return values 0 or 1, and guesses of them."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.7
    return truth.astype(float), np.clip(0.7 + skill * (truth - 0.7) + 0.1 * random.normal(size=n), 0, 1)


@pytest.mark.parametrize("skill", [0.0, 0.8])
def test_the_interval_holds_the_truth_and_is_never_wider_for_guesses(skill: float) -> None:
    held, errors, plain = 0, [], []
    for seed in range(400):
        values, guesses = drawn(seed, 660, skill)
        found = prediction_powered(values[:60], guesses[:60], guesses[60:])
        held += abs(found.value - 0.7) < 1.96 * found.standard_error
        errors.append(found.standard_error)
        plain.append(values[:60].std(ddof=1) / 60**0.5)
    assert held / 400 > 0.92
    ratio = np.mean(errors) / np.mean(plain)
    assert ratio < (1.01 if skill == 0 else 0.6)


def test_wrong_guesses_do_not_move_the_estimate() -> None:
    found = []
    for seed in range(400):
        values, guesses = drawn(seed, 660, 0.8)
        found.append(prediction_powered(values[:60], 0.5 * guesses[:60] + 0.5, 0.5 * guesses[60:] + 0.5).value)
    assert np.mean(found) == pytest.approx(0.7, abs=0.01)


def test_without_other_images_it_is_the_mean() -> None:
    values, guesses = drawn(0, 50, 0.8)
    found = prediction_powered(values, guesses, guesses[:0])
    assert found.value == values.mean()
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 50**0.5)


def test_an_interval_has_a_width_where_all_are_right() -> None:
    found = accuracy(np.ones(20, bool), np.full(20, 0.99), np.full(500, 0.99))
    assert (found.value, found.low) == (1.0, round(wilson(1.0, 20).low, 6))


def test_labels_that_are_no_class_are_counted_and_left_out() -> None:
    random = np.random.default_rng(0)
    labels = np.array([0, 1] * 20 + [-1] * 30 + [-2] * 5)
    right = np.where(labels < 0, 0, labels)
    wrong = np.where(random.random(len(labels)) < 0.4, 1 - right, right)

    def answers(named: np.ndarray) -> Answers:
        return Answers((0.2 + 0.6 * np.eye(2)[named]).astype(np.float32), np.zeros(len(named), np.float32))

    found = compared(answers(wrong), answers(right), labels)
    assert (found.n_images, found.n_others, found.n_other_labels) == (40, 30, 5)
    assert found.adapted is not None and found.gain is not None
    assert found.plain.value == pytest.approx((wrong == right)[:40].mean())
    assert found.adapted.value == 1.0
    assert found.gain.value == pytest.approx((wrong != right)[:40].mean())
    assert found.gain.low > 0
    alone = compared(answers(wrong), None, labels)
    assert (alone.plain, alone.adapted, alone.gain) == (found.plain, None, None)
