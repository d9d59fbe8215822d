"""The parts of an image that an answer depends on: the model runs with one part after another covered."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

GRID = 8  # parts along each side
_COVER = 2  # width of a cover in parts, so that an object on a border of parts is covered too
_LEVEL = 128  # grey, which means little to networks


def occlusion(pixels: np.ndarray, answer: Callable[[np.ndarray], np.ndarray], label: int) -> np.ndarray:
    """Return float64 [G, G]: how much the probability of `label` falls, on average, when a part is covered.

    `pixels` uint8 [S, S, 3]; `answer` takes uint8 [N, S, S, 3] and returns probabilities [N, C]. This is occlusion
    sensitivity (Zeiler & Fergus 2014, section 4.2), which works for any network.
    """
    side = len(pixels)
    edges = np.linspace(0, side, GRID + 1).round().astype(int)
    starts = [(row, column) for row in range(1 - _COVER, GRID) for column in range(1 - _COVER, GRID)]
    covered = np.repeat(pixels[None], len(starts) + 1, axis=0)
    spans = []
    for number, (row, column) in enumerate(starts):
        down, across = (slice(max(first, 0), min(first + _COVER, GRID)) for first in (row, column))
        spans.append((down, across))
        covered[number, edges[down.start] : edges[down.stop], edges[across.start] : edges[across.stop]] = _LEVEL
    probabilities = answer(covered)[:, label].astype(np.float64)
    total, times = np.zeros((2, GRID, GRID))
    for (down, across), fall in zip(spans, probabilities[-1] - probabilities[:-1], strict=True):
        total[down, across] += fall
        times[down, across] += 1
    return total / times
