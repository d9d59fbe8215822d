"""A power law through a learning curve, and what more images would bring by it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TIMES = 10  # as many images, up to which the curve is continued
_EXPONENTS = np.linspace(0.25, 1.5, 16)  # about those of linear models: excess errors fall as n^-0.5 to n^-1
_SAMPLES = 800
_MAX_GROUPS = 2000  # that are resampled one by one; more are taken together, which changes the interval little
_STEPS = 16


class Forecast(NamedTuple):
    """The accuracy that a number of images would bring, with a 95 % interval."""

    n_images: int
    accuracy: float
    low: float
    high: float


def forecast(n_images: np.ndarray, right: np.ndarray, groups: np.ndarray, seed: int) -> list[Forecast]:
    """Return accuracies from the fewest images to ten times the most; none where no curve can be told.

    `n_images` [P] rising; `right` bool [P, V]: whether heads that learned from so many got each held-out image right.
    The share of mistakes is taken as a + b * n^-c with a, b >= 0 (Cortes et al. 1993; Viering & Loog 2022), fitted by
    least squares with weights n^2, since the end of the curve tells most of what follows. A few points hardly tell c:
    it is drawn anew in each sample of a bootstrap of the held-out images, in whole groups. Accuracy is the median of
    the samples. The interval knows nothing of images of another kind, and promises too little where mistakes fall more
    slowly than n^-0.5.
    """
    if len(np.unique(n_images)) < 3 or right[-1].all():
        return []
    wanted = np.geomspace(n_images[0], TIMES * n_images[-1], _STEPS).round()
    errors = _resampled(~right, groups, seed)
    exponents = np.random.default_rng(seed).choice(_EXPONENTS, len(errors))
    drawn = 1 - _continued(n_images.astype(np.float64), errors, wanted, exponents)
    low, middle, high = np.percentile(drawn, [2.5, 50, 97.5], axis=0)
    return [Forecast(int(n), *map(float, each)) for n, *each in zip(wanted, middle, low, high, strict=True)]


def _resampled(wrong: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return float64 [S, P]: shares of mistakes where whole groups are drawn with replacement."""
    names, group_of = np.unique(groups, return_inverse=True)
    part_of = group_of % _MAX_GROUPS
    n_parts = min(len(names), _MAX_GROUPS)
    sizes = np.bincount(part_of, minlength=n_parts)
    mistakes = np.stack([np.bincount(part_of, each, n_parts) for each in wrong], axis=1)
    drawn = np.random.default_rng(seed).multinomial(n_parts, np.full(n_parts, 1 / n_parts), _SAMPLES)
    shares: np.ndarray = (drawn @ mistakes) / (drawn @ sizes)[:, None]
    return shares


def _continued(n_images: np.ndarray, errors: np.ndarray, wanted: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """Return float64 [S, W]: shares of mistakes with `wanted` images [W], by a power law for each curve [S, P]."""
    found = np.zeros((len(errors), len(wanted)))
    weights = np.square(n_images) / np.square(n_images).sum()
    for exponent in np.unique(exponents):
        some = exponents == exponent
        x, y = (n_images / n_images[-1]) ** -exponent, errors[some]
        mean_x, mean_y = weights @ x, y @ weights
        slope = np.maximum((y - mean_y[:, None]) @ (weights * (x - mean_x)) / (weights @ np.square(x - mean_x)), 0)
        floor = mean_y - slope * mean_x
        below = floor < 0  # then the law goes to 0, and its slope is that of a line through the origin
        slope = np.where(below, y @ (weights * x) / (weights @ np.square(x)), slope)
        found[some] = np.maximum(floor, 0)[:, None] + slope[:, None] * (wanted / n_images[-1]) ** -exponent
    return np.clip(found, 0, 1)
