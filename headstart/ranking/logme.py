"""LogME: the log evidence of a Bayesian linear model of the labels, given the features (You et al. 2021).

arXiv 2102.11005, section 4, with the fixed-point iteration of arXiv 2110.10545, algorithm 3.
"""

from __future__ import annotations

import math

import numpy as np

_MAX_STEPS, _CLOSE = 200, 1e-4  # of the iteration; the ratio of the precisions, relative
_TINY = 1e-12  # keeps precisions finite where features fit the labels exactly, as they do from N <= D on
_NO_VARIANCE = 1e-12  # of the largest eigenvalue


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Return LogME of float [N, D] for labels int [N]: the higher the better, in nats an image and class.

    Each class is a regression on whether an image is of it. The precisions of the weights and of the noise are those
    with the highest evidence. Classes without an image do not count.
    """
    rows = features.astype(np.float64)
    n_rows = len(rows)
    left, singular, _ = np.linalg.svd(rows, full_matrices=False)
    is_real = singular**2 > _NO_VARIANCE * max(float(singular[0]) ** 2, _TINY)
    left, variances = left[:, is_real], singular[is_real] ** 2
    found = [_evidence(left, variances, (labels == label).astype(float)) for label in np.unique(labels)]
    return sum(found) / len(found) / n_rows


def _evidence(left: np.ndarray, variances: np.ndarray, target: np.ndarray) -> float:
    """Return the highest log evidence of float [N], by the left singular vectors and squared singular values."""
    n_rows = len(target)
    along = np.square(left.T @ target)
    outside = max(float(target @ target) - float(along.sum()), 0.0)  # of the target, that no weights reach
    of_weights = of_noise = 1.0  # precisions
    for _ in range(_MAX_STEPS):
        ratio = of_weights / of_noise
        size, residual = _size(along, variances, ratio), _residual(along, variances, ratio) + outside
        n_effective = float((variances / (ratio + variances)).sum())
        of_weights = max(n_effective, _TINY) / max(size, _TINY)
        of_noise = max(n_rows - n_effective, _TINY) / max(residual, _TINY)
        if abs(of_weights / of_noise - ratio) <= _CLOSE * ratio:
            break
    ratio = of_weights / of_noise
    size, residual = _size(along, variances, ratio), _residual(along, variances, ratio) + outside
    return 0.5 * float(
        len(variances) * math.log(of_weights)
        + n_rows * math.log(of_noise)
        - np.log(of_weights + of_noise * variances).sum()
        - of_noise * residual
        - of_weights * size
        - n_rows * math.log(2 * math.pi)
    )


def _size(along: np.ndarray, variances: np.ndarray, ratio: float) -> float:
    """Return the squared norm of the mean weights."""
    return float((variances * along / np.square(ratio + variances)).sum())


def _residual(along: np.ndarray, variances: np.ndarray, ratio: float) -> float:
    """Return the squared error of the mean weights within what the features span."""
    return float((along * np.square(ratio / (ratio + variances))).sum())
