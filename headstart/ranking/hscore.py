"""H-score: how much of the features' variance, each direction scaled to 1, lies between classes (Bao et al. 2019)."""

from __future__ import annotations

import numpy as np

_NO_VARIANCE = 1e-10  # of the largest singular value


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Return `tr(pinv(cov(f)) cov(E[f | y]))` of float [N, D] for labels int [N]: 0..C - 1, the higher the better.

    "An information-theoretic approach to transferability in task transfer learning", ICIP 2019, definition 2. With as
    many features as images it is C - 1 whatever the features are, and tells nothing.
    """
    rows = features - features.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    left = left[:, singular > _NO_VARIANCE * max(float(singular[0]), 1e-300)]
    sums = [left[labels == label].sum(axis=0) for label in np.unique(labels)]
    counts = np.unique(labels, return_counts=True)[1]
    return float(sum(float(total @ total) / count for total, count in zip(sums, counts, strict=True)))
