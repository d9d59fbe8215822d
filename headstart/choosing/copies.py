"""Leaves out images that are nearly the same as a labelled one, or as one that ranks higher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headstart.auditing import duplicates
from headstart.auditing.neighbours import unit

_NEAREST = 3  # neighbours of an image that may be its copies, among the labelled images and among the others
_BLOCK = 4096

Pixels = Callable[[np.ndarray], np.ndarray]  # numbers of images -> uint8 [n, S, S, 3]


def without_copies(rows: np.ndarray, known: np.ndarray, pixels: Pixels, cosine: float, wanted: np.ndarray) -> list[int]:
    """Return the numbers of the images, float [K, D] in the order of their rank, that are no copies.

    `known` float [M, D]: the labelled images; `pixels` counts those after the K others. As the audit does, pairs from a
    `cosine` on are laid on each other; they are copies from the correlation `wanted` float [K] of the first on.
    """
    units, others = unit(rows), unit(known)
    beside = np.array([0, len(rows)])
    pairs = np.concatenate([_near(units, others, cosine) + beside, _near(units, units, cosine)])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    same = duplicates.compared(pairs, pixels) >= wanted[pairs[:, 0]] if len(pairs) else np.zeros(0, bool)
    twins: dict[int, set[int]] = {}
    for first, second in pairs[same].tolist():
        twins.setdefault(first, set()).add(second)
        twins.setdefault(second, set()).add(first)
    kept: list[int] = []
    there = set(range(len(rows), len(rows) + len(known)))
    for number in range(len(rows)):
        if not twins.get(number, set()) & there:
            kept.append(number)
            there.add(number)
    return kept


def _near(rows: np.ndarray, others: np.ndarray, cosine: float) -> np.ndarray:
    """Return int [P, 2]: each row with its nearest others, of which one may be itself."""
    found: list[tuple[int, int]] = []
    for start in range(0, len(rows), _BLOCK):
        products = rows[start : start + _BLOCK] @ others.T
        nearest: Sequence[Sequence[int]] = np.argsort(-products, axis=1)[:, : _NEAREST + 1].tolist()
        found += [
            (start + row, other) for row, some in enumerate(nearest) for other in some if products[row, other] >= cosine
        ]
    return np.array(found, np.int64).reshape(-1, 2)
