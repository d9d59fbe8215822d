"""How unlike all training images an image is, by the frozen or tuned backbone's features alone.

A class centre is the mean direction of the class's features (the nearest class mean of Mensink et al. 2013, section 3).
The novelty of an image is the share of held-out images whose cosine to their nearest centre is larger than its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_N_MARKS = 1000  # of the scale: a novelty is known to a thousandth
_SMALLEST = 1e-12


class Novelty(NamedTuple):
    """The class centres, and the scale of held-out cosines, that an image's novelty is read from."""

    centres: np.ndarray  # float32 [D, C], unit columns; 0 for a class without images
    similarities: np.ndarray  # float32 [K], ascending: cosines of held-out images to their nearest centre

    def of(self, features: np.ndarray) -> np.ndarray:
        """Return float32 [N] in 0..1 for [N, D]: the share of held-out images nearer to a centre."""
        nearest = _cosines(features, self.centres)
        n_farther = len(self.similarities) - np.searchsorted(self.similarities, nearest.astype(np.float32), "right")
        return (n_farther / len(self.similarities)).astype(np.float32)


def fit(features: np.ndarray, labels: np.ndarray, n_classes: int, fold_of: np.ndarray) -> Novelty:
    """Return centres of all images, and the scale of each fold against the centres of the others.

    `features` float [N, D]; `labels` int [N] in 0..C-1; `fold_of` int [N]. Images of fold -1 are in no scale, and
    in the centres of every fold.
    """
    units = _unit(features.astype(np.float64))
    n_folds = int(fold_of.max()) + 1

    def sums(fold: int) -> np.ndarray:  # of one fold at a time: classes and features may be many
        found = np.zeros((n_classes, features.shape[1]))
        np.add.at(found, labels[fold_of == fold], units[fold_of == fold])
        return found

    total = sums(0)
    for fold in (*range(1, n_folds), -1):
        total += sums(fold)
    held_out = [_cosines(features[fold_of == fold], _unit(total - sums(fold)).T) for fold in range(n_folds)]
    marks = np.sort(np.concatenate(held_out))
    if len(marks) > _N_MARKS:
        marks = np.quantile(marks, np.linspace(0, 1, _N_MARKS))
    return Novelty(_unit(total).T.astype(np.float32), marks.astype(np.float32))


def _cosines(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = (_unit(features.astype(np.float64)) @ centres).max(1)
    return nearest


def _unit(rows: np.ndarray) -> np.ndarray:
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SMALLEST)
    return unit
