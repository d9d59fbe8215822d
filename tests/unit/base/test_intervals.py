from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from headstart.base.intervals import exact, n_independent, of_mean, wilson


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


@pytest.mark.parametrize(("n_classes", "n"), [(300, 1), (100, 2), (30, 1), (10, 5)])
def test_many_classes_of_few_images_are_covered_too(n_classes: int, n: int) -> None:
    """The exact interval of one image ends at what was seen, so intervals put together one by one ended too early."""
    random = np.random.default_rng(0)
    truth = random.beta(4, 1, n_classes)
    shares = random.binomial(n, truth, (1000, n_classes)) / n
    found = [of_mean(each.tolist(), [n] * n_classes) for each in shares]
    assert np.mean([truth.mean() <= each.high for each in found]) >= 0.96
    assert np.mean([each.low <= truth.mean() <= each.high for each in found]) >= 0.94


def test_groups_of_one_size_are_so_many_independent_images_and_a_large_group_counts_for_few() -> None:
    assert n_independent(np.arange(40)) == 40
    assert n_independent(np.repeat(np.arange(10), 4)) == pytest.approx(10)
    assert n_independent(np.repeat([0, 1], [1, 99])) == pytest.approx(1.02, abs=0.01)


def test_a_share_of_groups_of_unlike_sizes_is_covered() -> None:
    """Where two groups have three quarters of the images, counting groups covered the truth once in nine."""
    groups = np.repeat(np.arange(52), [100, 50, *[1] * 50])
    right = (np.random.default_rng(0).random((1000, 52)) < 0.8)[:, groups]
    found = [wilson(each.mean(), n_independent(groups)) for each in right]
    assert np.mean([each.low <= 0.8 <= each.high for each in found]) >= 0.93
