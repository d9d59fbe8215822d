"""Images that may be junk: blank, dark, bright, blurred, of extreme shape, screenshots, or far from every other.

An image is named where it lies far outside this dataset, by median and quartiles, and beyond a value that is odd for
any photograph. So a dataset of dark images has no dark ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

NAME = "quality 1"  # of `measure`; a change of what it returns needs another
MEASURES = ("brightness", "contrast", "sharpness", "flatness")
_FAR = 5.0  # robust deviations from the median
_FAR_FROM_ALL = 6.0  # of the distance to the nearest images
_NORMAL = 1.349  # quartile distances of a normal distribution, in deviations
_LEAST = {"brightness": 0.02, "contrast": 0.01, "sharpness": 0.2, "flatness": 0.02, "aspect": 0.05, "distance": 0.05}
_BELOW, _ABOVE = -1, 1
_DARK, _BRIGHT, _BLANK, _FLAT, _LONG = 0.1, 0.95, 0.02, 0.3, 2.5
_DRAWN = 0.6  # flatness that photographs hardly have


class Oddity(NamedTuple):
    """An image that is odd in one way."""

    row: int
    reason: str  # in words, with the value
    deviations: float  # robust, from the dataset's median


def measure(pixels: np.ndarray) -> np.ndarray:
    """Return float64 [4], `MEASURES` of one image, uint8 [S, S, 3].

    Mean and standard deviation of the luma (ITU-R BT.601), 0..1; the logarithm of the variance of its Laplacian
    (Pech-Pacheco et al. 2000); the share of pixels that equal both the next one and the one below.
    """
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(np.int16)
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    same = (luma[:-1, :-1] == luma[:-1, 1:]) & (luma[:-1, :-1] == luma[1:, :-1])
    return np.array([luma.mean() / 255, luma.std() / 255, np.log(laplacian.var() + 1e-3), same.mean()])


def odd(measures: np.ndarray, widths: np.ndarray, heights: np.ndarray, distances: np.ndarray) -> Iterator[Oddity]:
    """Yield what is odd of [N, 4] `measures`, the sizes in px, and the mean distance to the nearest images [N]."""
    brightness, contrast, sharpness, flatness = measures.T
    aspect = np.log(np.maximum(widths, heights) / np.minimum(widths, heights))
    rules = (
        ("brightness", brightness, _BELOW, brightness < _DARK, "dark: mean brightness {:.0%}"),
        ("brightness", brightness, _ABOVE, brightness > _BRIGHT, "bright: mean brightness {:.0%}"),
        ("contrast", contrast, _BELOW, contrast < _BLANK, "blank: contrast {:.1%}"),
        (
            "sharpness",
            sharpness,
            _BELOW,
            np.ones(len(sharpness), bool),
            "blurred: log variance of the Laplacian {:.1f}",
        ),
        (
            "flatness",
            flatness,
            _ABOVE,
            flatness > _FLAT,
            "large even areas: {:.0%} of its pixels equal those beside and below them",
        ),
    )
    for name, values, side, is_odd, words in rules:
        far = side * _deviations(values, _LEAST[name])
        for row in np.flatnonzero((far > _FAR) & is_odd):
            said = words.format(values[row])
            if name == "flatness" and values[row] > _DRAWN:
                said += ", as in a drawing, a screenshot or a cut-out"
            yield Oddity(int(row), said, float(far[row]))
    far = _deviations(aspect, _LEAST["aspect"])
    for row in np.flatnonzero((far > _FAR) & (aspect > np.log(_LONG))):
        yield Oddity(int(row), f"of extreme shape: {widths[row]} x {heights[row]} px", float(far[row]))
    far = _deviations(np.log(np.maximum(distances, 1e-6)), _LEAST["distance"])
    for row in np.flatnonzero(far > _FAR_FROM_ALL):
        yield Oddity(int(row), f"unlike all others: its nearest images are {distances[row]:.2f} away", float(far[row]))


def _deviations(values: np.ndarray, least: float) -> np.ndarray:
    """Return how many robust deviations each value is above the median; a deviation is `least` or more."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    found: np.ndarray = (values - middle) / max((high - low) / _NORMAL, least)
    return found
