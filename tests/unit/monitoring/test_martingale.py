"""The bet: p-values are uniform, the capital is a martingale, and change makes it grow."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from headstart.monitoring.martingale import N_BETS, Martingale, densities


def bet(levels: np.ndarray, n_held_out: int, seed: int, n_levels: int = 100) -> tuple[Martingale, list[float]]:
    """Return the martingale after all levels, the first `n_held_out` of which are those of held-out images."""
    draw = np.random.default_rng(seed)
    made = Martingale(np.bincount(levels[:n_held_out], minlength=n_levels))
    return made, [made.add(int(level), draw.random()) for level in levels[n_held_out:]]


@pytest.mark.parametrize("n_held_out", [1, 5, 50])
def test_p_values_are_uniform_and_independent_however_few_images_are_held_out(n_held_out: int) -> None:
    """Without the past in the comparison, p-values of one stream would share what the few held-out images are."""
    draw = np.random.default_rng(0)
    streams = np.array([bet(draw.integers(0, 100, n_held_out + 30), n_held_out, seed)[1] for seed in range(150)])
    assert kstest(streams.ravel(), "uniform").pvalue > 0.001
    means = streams.mean(1)
    assert means.std() == pytest.approx((1 / 12 / 30) ** 0.5, rel=0.2)


def test_every_density_has_the_integral_one() -> None:
    bins = np.random.default_rng(0).uniform(0.5, 5, 10)
    edges = np.concatenate([[0], np.logspace(-12, -2, 4000), np.linspace(0.01, 0.99, 20001)[1:]])
    edges = np.unique(np.concatenate([edges, 1 - edges]))
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    values = np.array([densities(p, bins) for p in middles])
    assert values.shape[1] == N_BETS
    assert widths @ values == pytest.approx(1, abs=0.01)


def test_weights_stay_a_distribution() -> None:
    made, _ = bet(np.random.default_rng(1).integers(0, 100, 2000), 100, 0)
    assert made.weights.sum() == pytest.approx(1)
    assert made.weights.min() > 0
    assert made.counts.sum() == 2000


def test_false_alarms_are_at_most_what_is_stated() -> None:
    """Over 600 streams of 150 images; the bound is for ever, and the highest capital is what an alarm follows."""
    draw = np.random.default_rng(2)
    highest = [bet(draw.integers(0, 20, 200), 50, seed, 20)[0].log_highest for seed in range(600)]
    for allowed in (0.5, 0.1, 0.05):
        share = float(np.mean(np.array(highest) >= np.log(1 / allowed)))
        assert share <= allowed + 2 * (allowed / 600) ** 0.5


@pytest.mark.parametrize("shift", [30, -30])
def test_a_change_either_way_is_found_soon(shift: int) -> None:
    draw = np.random.default_rng(3)
    before = np.clip(draw.normal(50, 10, 300), 0, 99).astype(int)
    after = np.clip(draw.normal(50 + shift, 10, 60), 0, 99).astype(int)
    made, _ = bet(np.concatenate([before, after[:12]]), 300, 0)
    assert made.log_highest > np.log(300)


def test_a_change_after_many_images_is_found_too() -> None:
    draw = np.random.default_rng(4)
    before = np.clip(draw.normal(50, 10, 3300), 0, 99).astype(int)
    after = np.clip(draw.normal(80, 10, 40), 0, 99).astype(int)
    quiet, _ = bet(before, 300, 0)
    assert quiet.log_highest < np.log(100)
    made, _ = bet(np.concatenate([before, after]), 300, 0)
    assert made.log_highest > np.log(300)
