"""Accuracy of the nearest neighbours, each image left out with its group: it needs no fit and no choice."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 5
_ROWS = 512  # compared with all others at a time
_SMALLEST = 1e-12


def knn_accuracy(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Return the share of images whose class most of their `k` nearest images of other groups have, by the cosine.

    Features are float [N, D], centred first; labels int [N], groups [N]. Of classes with as many votes the one wins
    that has the nearest image. An image without any of another group counts as wrong.
    """
    rows = (features - features.mean(axis=0, dtype=np.float64)).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SMALLEST)
    _, group_of = np.unique(groups, return_inverse=True)
    n_classes, k = int(labels.max()) + 1, min(k, len(rows) - 1)
    n_right = 0
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        cosines = rows[part] @ rows.T
        cosines[group_of[part, None] == group_of] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        is_there = np.isfinite(np.take_along_axis(cosines, nearest, axis=1))
        votes = np.zeros((len(nearest), n_classes))
        for rank in range(k):
            worth = is_there[:, rank] * (1 + 2.0 ** -(rank + 2) / k)  # the nearer decides between as many votes
            votes[np.arange(len(nearest)), labels[nearest[:, rank]]] += worth
        n_right += int(((votes.argmax(axis=1) == labels[part]) & is_there[:, :1].any(axis=1)).sum())
    return n_right / len(rows)
