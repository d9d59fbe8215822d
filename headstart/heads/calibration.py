"""Calibration by one temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

_WIDEST = 20.0  # temperatures lie in 1 / 20 .. 20


def fit_temperature(logits: np.ndarray, labels: np.ndarray, caution: float = 0.0) -> float:
    """Return the T in 0.05..20 that minimises the log loss of softmax(logits / T), float [N, C].

    With `caution`, log T has a normal prior of mean 0 and variance 1 / (2 * caution). It keeps T from falling to its
    bound where all of a few images are right; its influence falls as N grows.
    """

    def loss(log_t: float) -> float:
        return log_loss(logits / np.exp(log_t), labels) + caution * log_t**2 / len(labels)

    bound = np.log(_WIDEST)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6}).x))


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean log loss in nats an image of softmax(logits), float [N, C]."""
    return float(losses(logits, labels).mean(dtype=np.float64))


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log loss of each image in nats, float [N], of softmax(logits), float [N, C]."""
    found: np.ndarray = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return found
