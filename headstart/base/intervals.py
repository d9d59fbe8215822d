"""95 % intervals of shares."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

Z = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson(share: float, n: int) -> Interval:
    """Return the interval of a share of `n` (Wilson 1927). It has a width even where all or none are right."""
    middle, shrink = share + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * (max(share * (1 - share), 0) / n + Z * Z / (4 * n * n)) ** 0.5
    return Interval((middle - half) / shrink, (middle + half) / shrink)


def exact(share: float, n: int) -> Interval:
    """Return the interval of a share of `n`, exact and never too narrow (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    right = share * n
    low = float(betaincinv(right, n - right + 1, 0.025)) if share > 0 else 0.0
    return Interval(low, float(betaincinv(right + 1, n - right, 0.975)) if share < 1 else 1.0)


def of_mean(shares: Sequence[float], numbers: Sequence[int]) -> Interval:
    """Return the interval of the mean of independent shares, each of so many.

    Their exact intervals are put together by the method of variance estimates recovery (Zou & Donner 2008). So a class
    with one image makes it wide, where all resamples of a bootstrap would agree on that class.
    """
    each = [exact(share, n) for share, n in zip(shares, numbers, strict=True)]
    mean = sum(shares) / len(shares)
    below = sum((share - own.low) ** 2 for share, own in zip(shares, each, strict=True)) ** 0.5 / len(shares)
    above = sum((own.high - share) ** 2 for share, own in zip(shares, each, strict=True)) ** 0.5 / len(shares)
    return Interval(max(mean - below, 0.0), min(mean + above, 1.0))
