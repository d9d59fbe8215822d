"""What more images would bring, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import power_law
from headstart.heads.power_law import forecast

NUMBERS = np.array([60, 150, 300, 600])


def drawn(truth: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return bool [P, n]: answers of heads whose accuracies are `truth`, right on the same easy images."""
    return np.random.default_rng(seed).random(n) < truth[:, None]


@pytest.mark.parametrize(("floor", "rest", "exponent"), [(0.05, 0.15, 0.5), (0.1, 0.1, 1.0), (0.1, 0.15, 0.7)])
def test_the_interval_holds_what_ten_times_the_images_bring(floor: float, rest: float, exponent: float) -> None:
    def accuracy(n: np.ndarray) -> np.ndarray:
        return 1 - floor - rest * (n / 600) ** -exponent

    hits, apart, truth = 0, [], float(accuracy(np.array([6000]))[0])
    for seed in range(100):
        last = forecast(NUMBERS, drawn(accuracy(NUMBERS), 800, seed), np.arange(800), seed)[-1]
        assert last.n_images == 6000
        assert last.low <= last.accuracy <= last.high
        hits += last.low <= truth <= last.high
        apart.append(last.accuracy - truth)
    assert hits >= 85
    assert abs(np.mean(apart)) < 0.06


def test_a_flat_curve_promises_nothing() -> None:
    right = drawn(np.array([0.8, 0.8, 0.8, 0.8]), 1000, 0)
    last = forecast(NUMBERS, right, np.arange(1000), 0)[-1]
    assert last.accuracy == pytest.approx(right[-1].mean(), abs=0.01)


def test_images_of_a_group_are_drawn_together() -> None:
    right = drawn(np.array([0.6, 0.7, 0.75, 0.8]), 200, 0)
    alone = forecast(NUMBERS, right, np.arange(200), 0)[-1]
    together = forecast(NUMBERS, np.repeat(right, 5, axis=1), np.repeat(np.arange(200), 5), 0)[-1]
    apart = forecast(NUMBERS, np.repeat(right, 5, axis=1), np.arange(1000), 0)[-1]
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=1e-6)
    assert apart.high - apart.low < together.high - together.low


def test_very_many_groups_give_about_the_same_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    right = drawn(np.array([0.6, 0.7, 0.75, 0.8]), 1500, 0)
    one = forecast(NUMBERS, right, np.arange(1500), 0)[-1]
    monkeypatch.setattr(power_law, "_MAX_GROUPS", 300)
    assert forecast(NUMBERS, right, np.arange(1500), 0)[-1] == pytest.approx(one, abs=0.02)


def test_no_curve_is_told_without_a_mistake_or_with_two_numbers_of_images() -> None:
    right = drawn(np.array([0.6, 0.7, 0.75, 0.8]), 50, 0)
    assert forecast(np.array([4, 4, 4, 6]), right, np.arange(50), 0) == []
    right[-1] = True
    assert forecast(NUMBERS, right, np.arange(50), 0) == []


def test_the_same_seed_gives_the_same_forecast() -> None:
    right = drawn(np.array([0.6, 0.7, 0.75, 0.8]), 300, 0)
    assert forecast(NUMBERS, right, np.arange(300), 1) == forecast(NUMBERS, right, np.arange(300), 1)
