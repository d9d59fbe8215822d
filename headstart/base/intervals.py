"""95 % intervals of shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Z = NormalDist().inv_cdf(0.975)
_MANY = 20  # images whose exact interval may stand alone where means are taken


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def n_independent(groups: Sequence[object] | np.ndarray) -> float:
    """Return how many independent images those of these groups count for, if images of a group are all alike.

    As many as groups where these are of one size; fewer where a few hold most images (Kish 1965, section 11.7).
    """
    sizes = Counter(groups if isinstance(groups, Sequence) else groups.tolist()).values()
    return float(sum(sizes) ** 2 / sum(size * size for size in sizes))


def wilson(share: float, n: float) -> Interval:
    """Return the interval of a share of `n` (Wilson 1927). It has a width even where all or none are right."""
    middle, shrink = share + Z * Z / (2 * n), 1 + Z * Z / n
    half = Z * (max(share * (1 - share), 0) / n + Z * Z / (4 * n * n)) ** 0.5
    return Interval((middle - half) / shrink, (middle + half) / shrink)


def exact(share: float, n: float) -> Interval:
    """Return the interval of a share of `n`, exact and never too narrow (Clopper & Pearson 1934)."""
    from scipy.special import betaincinv

    right = share * n
    low = float(betaincinv(right, n - right + 1, 0.025)) if share > 0 else 0.0
    return Interval(low, float(betaincinv(right + 1, n - right, 0.975)) if share < 1 else 1.0)


def of_mean(shares: Sequence[float], numbers: Sequence[float]) -> Interval:
    """Return the interval of the mean of independent shares, each of so many.

    Their exact intervals are put together by the method of variance estimates recovery (Zou & Donner 2008). So a class
    with one image makes it wide, where all resamples of a bootstrap would agree on that class. An exact interval of few
    ends where the share does if that is 0 or 1. So shares of equally few are taken together first: their sum varies no
    more than a binomial one (Hoeffding 1956).
    """
    alike: dict[float, list[tuple[float, float]]] = {}
    for number, (share, n) in enumerate(zip(shares, numbers, strict=True)):
        alike.setdefault(math.floor(n) if n < _MANY else -number, []).append((share, n))
    mean, below, above = sum(shares) / len(shares), 0.0, 0.0
    for some in alike.values():
        share, weight = sum(own for own, _ in some) / len(some), len(some) / len(shares)
        own = exact(share, len(some) ** 2 / sum(1 / n for _, n in some))
        below += (weight * (share - own.low)) ** 2
        above += (weight * (own.high - share)) ** 2
    below, above = below**0.5, above**0.5
    return Interval(max(mean - below, 0.0), min(mean + above, 1.0))
