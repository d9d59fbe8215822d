"""How alike two pictures are after the one is laid on the best-fitting part of the other, or of its mirror image."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import fft

from headstart.base.cores import n_cores
from headstart.embedding.pixels import threads

NAME = "alignment 1"  # of `correlation`; a change of what it returns needs another
SIDE_PX = 48  # of the grey pictures that are compared
SCALES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65)  # of the side that the part has
_BATCH = 128  # pairs at a time
_FLAT = 1e-6  # variance of a part, of pixels in 0..1, below which it shows nothing


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 [N, SIDE_PX, SIDE_PX] of uint8 [N, S, S, 3]: the luma, averaged over areas."""
    side = (SIDE_PX, SIDE_PX)
    small = [np.asarray(Image.fromarray(each).convert("L").resize(side, Image.Resampling.BOX)) for each in pixels]
    return np.array(small, np.uint8).reshape(-1, *side)


def correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return float32 [P] in -1..1 for two stacks of `grey` pictures, uint8 [P, SIDE_PX, SIDE_PX].

    It is the largest normalised cross-correlation (Lewis 1995) of one picture, at each of `SCALES` and mirrored or not,
    with any part of the other of that size; and the reverse. A picture without contrast correlates with nothing.

    A pair has the same value, to the last bit, whatever other pairs are compared with it.
    """
    parts = [slice(start, start + _BATCH) for start in range(0, len(one), _BATCH)]

    def both(at: slice) -> np.ndarray:
        some, others = _filled(one[at]), _filled(other[at])
        found = np.maximum(_within(some, others, SCALES), _within(others, some, SCALES[1:]))
        return np.asarray(found[: len(one[at])])

    return np.concatenate([np.zeros(0, np.float32), *threads(n_cores()).map(both, parts)])


def _filled(pictures: np.ndarray) -> np.ndarray:
    """Return float32 [_BATCH, ...] in 0..1, black pictures behind these: sums of fewer are rounded otherwise."""
    filled = np.zeros((_BATCH, *pictures.shape[1:]), np.float32)
    filled[: len(pictures)] = pictures.astype(np.float32) / 255
    return filled


def _within(whole: np.ndarray, part: np.ndarray, scales: tuple[float, ...]) -> np.ndarray:
    side = whole.shape[1]
    best = np.full(len(whole), -1.0, np.float32)
    spectrum = fft.rfft2(whole)
    sums, squares = _summed(whole), _summed(whole.astype(np.float64) ** 2)
    for scale in scales:
        size = round(scale * side)
        shrinking = _averaging(side, size)
        template = shrinking @ part @ shrinking.T
        template = template - template.mean((1, 2), keepdims=True)
        norms = np.sqrt((template * template).sum((1, 2)))
        variances = _window(squares, size) - _window(sums, size) ** 2 / size**2
        scaling = np.sqrt(np.maximum(variances, _FLAT * size**2)) * np.maximum(norms, _FLAT**0.5 * size)[:, None, None]
        n_places = side - size + 1
        for turned in (template, template[:, :, ::-1]):
            product = fft.irfft2(spectrum * fft.rfft2(turned.astype(np.float32), s=(side, side)).conj(), s=(side, side))
            np.maximum(best, (product[:, :n_places, :n_places] / scaling).max((1, 2)), out=best)
    return best.clip(-1, 1)


def _summed(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values.astype(np.float64), ((0, 0), (1, 0), (1, 0)))
    table: np.ndarray = padded.cumsum(1).cumsum(2)
    return table


def _window(table: np.ndarray, size: int) -> np.ndarray:
    """Return the sums over all windows of a side, from the table of sums over corners."""
    sums: np.ndarray = (
        table[:, size:, size:] - table[:, :-size, size:] - table[:, size:, :-size] + table[:, :-size, :-size]
    )
    return sums


def _averaging(n_from: int, n_to: int) -> np.ndarray:
    """Return float32 [n_to, n_from]: each new pixel is the mean of the area that it covers."""
    edges = np.linspace(0, n_from, n_to + 1)
    begins, ends = edges[:-1, None], edges[1:, None]
    cells = np.arange(n_from)[None]
    covered = np.clip(np.minimum(ends, cells + 1) - np.maximum(begins, cells), 0, None)
    weights: np.ndarray = covered / covered.sum(1, keepdims=True)
    return weights.astype(np.float32)
