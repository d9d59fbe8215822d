"""Calibration by one temperature (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from headstart.onnx.head_folder import CalibrationRecord, Outcome

# Scores are meant to be about log probabilities, so a higher temperature says that the heads of the folds are not like
# the head that ships. A low one is usual: scores of -1..1 over hundreds of classes need one.
HIGHEST, LOWEST = 20.0, 1e-3
TOO_HIGH, _TOO_LOW = HIGHEST / 1.05, LOWEST * 1.05  # what counts as their bounds
CAUTION = 1.0  # of a temperature that may ship
_CLOSE, _MAX_STEPS = 1e-6, 60  # relative

Trial = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # scores and labels to fit on, and others to try it on


class Calibration(NamedTuple):
    """The temperature that was found, and whether it ships."""

    fitted: float
    outcome: Outcome
    log_loss_without: float  # nats an image, of scores as they are
    log_loss_with: float  # the same with temperatures that were fitted on other images

    @property
    def temperature(self) -> float:
        """What scores are divided by: the fitted temperature, or 1 where it does not ship."""
        return self.fitted if self.outcome == "fitted" else 1.0

    @property
    def record(self) -> CalibrationRecord:
        """The same as it is written."""
        return CalibrationRecord(
            fitted=round(self.fitted, 6),
            outcome=self.outcome,
            log_loss_without=round(self.log_loss_without, 6),
            log_loss_with=round(self.log_loss_with, 6),
        )


def calibrate(scores: np.ndarray, labels: np.ndarray, trials: Iterable[Trial]) -> Calibration:
    """Return the temperature for scores [N, C], with caution.

    It does not ship if it is at its bound, nor if temperatures fitted and tried on the `trials` do worse than none.
    """
    fitted = fit_temperature(scores, labels, CAUTION)
    without, along = [], []
    for seen, of_seen, hidden, of_hidden in trials:
        without.append(losses(hidden, of_hidden))
        along.append(losses(hidden / may_ship(fit_temperature(seen, of_seen, CAUTION)), of_hidden))
    before, after = float(np.concatenate(without).mean()), float(np.concatenate(along).mean())
    outcome: Outcome = "no better than none" if after > before else "fitted"
    return Calibration(fitted, "at its bound" if may_ship(fitted) != fitted else outcome, before, after)


def by_fold(scores: np.ndarray, labels: np.ndarray, fold_of: np.ndarray) -> Iterator[Trial]:
    """Yield a trial for each fold, fitted on the others; a single one on all scores if there is one fold."""
    folds = np.unique(fold_of)
    for fold in folds:
        hidden = fold_of == fold
        seen = ~hidden if len(folds) > 1 else hidden
        yield scores[seen], labels[seen], scores[hidden], labels[hidden]


def may_ship(temperature: float) -> float:
    """Return the temperature, or 1 if it is at its bound."""
    return temperature if _TOO_LOW < temperature < TOO_HIGH else 1.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray, caution: float = 0.0) -> float:
    """Return the T in 0.001..20 that minimises the log loss of softmax(logits / T), float [N, C].

    With `caution`, log T has a normal prior of mean 0 and variance 1 / (2 * caution). It keeps T from falling to its
    bound where all of a few images are right; its influence falls as N grows.
    """

    rows, n = np.arange(len(labels)), len(labels)
    centred = logits - logits[rows, labels][:, None]

    def derivatives(sharpness: float) -> tuple[float, float]:
        p = softmax(centred * sharpness, axis=1)
        mean = np.einsum("nc,nc->n", p, centred)
        spread = np.einsum("nc,nc,nc->n", p, centred, centred) - mean**2
        log_t = -math.log(sharpness)
        return (
            float(mean.mean()) - 2 * caution * log_t / (n * sharpness),
            float(spread.mean()) + 2 * caution * max(1 + log_t, 0.0) / (n * sharpness**2),
        )

    # Newton's method on 1 / T, in which the loss is convex; a bracket catches steps that go too far.
    low, high, sharpness = 1 / HIGHEST, 1 / LOWEST, 1.0
    for _ in range(_MAX_STEPS):
        slope, bend = derivatives(sharpness)
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = sharpness - slope / bend if bend > 0 else (low if slope > 0 else high)
        after = step if low <= step <= high else (low * high) ** 0.5
        if abs(after - sharpness) <= _CLOSE * sharpness:
            return 1 / after
        sharpness = after
    return 1 / sharpness


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean log loss in nats an image of softmax(logits), float [N, C]."""
    return float(losses(logits, labels).mean(dtype=np.float64))


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the log loss of each image in nats, float [N], of softmax(logits), float [N, C]."""
    found: np.ndarray = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return found
