from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from headstart.base.intervals import exact, of_mean, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (30, 40), (399, 400)])
def test_the_interval_of_a_share_is_that_of_scipy(right: int, n: int) -> None:
    expected = {name: binomtest(right, n).proportion_ci(0.95, name) for name in ("wilson", "exact")}
    assert wilson(right / n, n) == pytest.approx((expected["wilson"].low, expected["wilson"].high))
    assert exact(right / n, n) == pytest.approx((expected["exact"].low, expected["exact"].high))
    assert of_mean([right / n], [n]) == pytest.approx(exact(right / n, n))


def test_the_mean_of_shares_of_many_is_about_normal() -> None:
    low, high = of_mean([0.8, 0.6], [1000, 1000])
    error = 1.96 * ((0.8 * 0.2 + 0.6 * 0.4) / 1000) ** 0.5 / 2
    assert (low, high) == pytest.approx((0.7 - error, 0.7 + error), abs=1e-3)


def test_a_class_of_one_image_makes_the_interval_wide() -> None:
    low, high = of_mean([1.0, 0.0], [80, 1])
    assert low < 0.5 < high
    assert high > 0.85
    assert (of_mean([1.0, 1.0], [80, 1]).low, of_mean([1.0, 1.0], [80, 1]).high) == pytest.approx((0.51, 1), abs=0.01)


@pytest.mark.parametrize(
    ("truth", "numbers"), [((0.98, 0.5), (80, 4)), ((0.9, 0.7, 0.4), (60, 10, 3)), ((0.9, 0.6), (300, 200))]
)
def test_it_covers_the_truth_as_often_as_it_promises(truth: tuple[float, ...], numbers: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        shares = [float(random.binomial(n, share) / n) for share, n in zip(truth, numbers, strict=True)]
        low, high = of_mean(shares, numbers)
        covered += low <= np.mean(truth) <= high
    assert covered / 2000 >= 0.94
    if min(numbers) > 100:  # with a few images in a class it covers more, since shares of four jump
        assert covered / 2000 < 0.98
