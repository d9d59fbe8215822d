"""What candidates are compared by: one value an image, whose mean over images is the figure. Lower is better."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.heads.calibration import losses

# Takes calibrated scores, float [N, C], and labels, int [N]; returns float64 [N].
Criterion = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _wrong(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    wrong: np.ndarray = scores.argmax(1) != labels
    return wrong.astype(np.float64)


def _wrong_balanced(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return values whose mean is 1 less the mean recall over the classes that are there."""
    counts = np.bincount(labels, minlength=scores.shape[1])
    value: np.ndarray = _wrong(scores, labels) * len(labels) / (counts[labels] * (counts > 0).sum())
    return value


def _f1_lacking(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return values whose mean is 1 less the mean F1 over the classes that are there.

    F1 is a ratio of sums; an image's value is its influence on it (Hampel 1974), so that standard errors follow.
    """
    classes = np.arange(scores.shape[1])
    truth, calls = labels[:, None] == classes, scores.argmax(1)[:, None] == classes
    hits, sizes = 2 * (truth & calls).astype(np.float64), truth.astype(np.float64) + calls
    there = truth.any(0)
    f1 = hits.sum(0) / np.maximum(sizes.sum(0), 1)
    influence = (hits - f1 * sizes) / np.maximum(sizes.sum(0), 1)
    value: np.ndarray = 1 - f1[there].mean() - len(labels) * influence[:, there].mean(1)
    return value


CRITERIA: dict[str, Criterion] = {
    "log_loss": losses,
    "accuracy": _wrong,
    "balanced_accuracy": _wrong_balanced,
    "macro_f1": _f1_lacking,
}
