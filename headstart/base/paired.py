"""Two candidates on the same images: by how much one is better, and how sure that is."""

from __future__ import annotations

from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Advantage(NamedTuple):
    """How much lower one candidate's losses are than another's on the same images."""

    mean: float  # nats an image; positive where the second candidate is better
    standard_error: float

    def is_clear(self, n_looks: int) -> bool:
        """Return whether it is significant at 5 %, one-sided, for the best of `n_looks` (Bonferroni)."""
        return self.mean > NormalDist().inv_cdf(1 - 0.05 / n_looks) * self.standard_error


def advantage(first_losses: np.ndarray, second_losses: np.ndarray, groups: np.ndarray) -> Advantage:
    """Return the mean of `first_losses - second_losses`, float [N], and its standard error, groups [N] kept whole.

    The error is the cluster-robust one (Liang & Zeger 1986); without groups of several images, the usual one.
    """
    differences = first_losses - second_losses
    mean = float(differences.mean())
    _, group_of = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_of, differences - mean)
    if len(sums) < 2:
        return Advantage(mean, float("inf"))
    variance = float(np.square(sums).sum()) * len(sums) / (len(sums) - 1)
    return Advantage(mean, variance**0.5 / len(differences))
