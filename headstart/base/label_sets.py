"""Sets of labels that hold the true one as often as asked: conformal prediction with adaptive sets.

Romano, Sesia & Candès 2020, "Classification with Valid and Adaptive Coverage", section 2, without its random step, so
that an image gets the same set each time. Such sets take labels, most probable first, until a mass is reached; so the
score of a label is the mass above it. The most probable label has score 0, and no set is empty. The price: where that
label alone is right more often than asked, the sets hold the true label more often than asked too.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

MOST_UNUSUAL = 5  # held-out images of a class beyond its own quantile; fewer, and one wrong label would decide it


def mass_above(probabilities: np.ndarray) -> np.ndarray:
    """Return float64 [N, C] in 0..1: the sum of the probabilities above that of each label, float [N, C].

    Labels of equal probability have the same. Training and prediction call this one function on float32, so that a
    score is the same number in both.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    falling = np.take_along_axis(probabilities, order, 1).astype(np.float64)
    before = np.zeros_like(falling)
    np.cumsum(falling[:, :-1], axis=1, out=before[:, 1:])
    begins = np.ones(falling.shape, bool)
    begins[:, 1:] = falling[:, 1:] != falling[:, :-1]
    first = np.maximum.accumulate(np.where(begins, np.arange(falling.shape[1]), 0), axis=1)
    found = np.empty_like(before)
    np.put_along_axis(found, order, np.take_along_axis(before, first, 1), 1)
    return np.clip(found, 0, 1)


def least_number(coverage: float) -> int:
    """Return how many held-out images, or groups, it takes at least: with fewer, sets must hold every label."""
    return math.ceil(1 / (1 - _exact(coverage))) - 1


def enough_for_a_class(coverage: float) -> int:
    """Return how many held-out images, or groups, a class needs for a quantile of its own.

    With so many, `MOST_UNUSUAL` of them lie at its quantile or beyond.
    """
    return math.ceil(MOST_UNUSUAL / (1 - _exact(coverage))) - 1


def quantile(scores: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """Return the quantile of the scores of held-out images, float [N] in 0..1; 1 where they are too few.

    Without groups of several images it is the ceil(coverage * (N + 1))-th smallest. The score of a new image is at most
    as large with a probability of `coverage` or more (Vovk, Gammerman & Shafer 2005, section 2.2). The added 1 stands
    for the new image. It counts as much as a group, since the images of a group are alike (Lee, Barber & Willett 2023,
    "Distribution-free inference with hierarchical data"; exact for groups of one size).
    """
    n_images, n_groups = len(scores), len(np.unique(groups))
    if n_groups < least_number(coverage):
        return 1.0
    rank = math.ceil(n_images * _exact(coverage) * (n_groups + 1) / n_groups)
    return float(np.sort(scores)[rank - 1])


def quantiles(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, n_classes: int, coverage: float
) -> np.ndarray:
    """Return float64 [C]: a quantile of its own for each class; or [1], one for all, if some class has too few images.

    Those of its own make sets hold the true label of each class as often as asked, in place of on average over classes
    (Vovk 2012, "Conditional validity of inductive conformal predictors": Mondrian).
    """
    of_class = [labels == label for label in range(n_classes)]
    if min(len(np.unique(groups[own])) for own in of_class) < enough_for_a_class(coverage):
        return np.array([quantile(scores, groups, coverage)])
    return np.array([quantile(scores[own], groups[own], coverage) for own in of_class])


def members(probabilities: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return bool [N, C]: which labels are in the set of each image, by `quantiles`, float [C] or [1]."""
    held: np.ndarray = mass_above(probabilities) <= limits
    return held


def _exact(coverage: float) -> Fraction:
    """Return the decimal that a user wrote: 1 / (1 - 0.9) is more than 10 in floats."""
    return Fraction(str(float(coverage)))
