"""Multinomial logistic regression with an L2 penalty on standardised features.

A strength is the penalty s in `mean cross-entropy + s/2 * sum(weight^2)`; the bias is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import log_softmax

from headstart.heads import linear
from headstart.heads.contract import PLAIN, Advance, Fitted, Training
from headstart.heads.descent import descend
from headstart.heads.design import Design
from headstart.heads.linear import Linear

NAME = "softmax"
WORDS = "multinomial logistic regression, L2"
IS_LINEAR, IS_COSTLY = True, True
grid, n_numbers = linear.penalties, linear.n_numbers


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the head of each strength, each started where the one before ended. See `contract.Kind`."""
    spread = training.label_smoothing

    def loss(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p = log_softmax(scores, axis=1)
        rows = np.arange(len(labels))
        each = -(1 - spread) * log_p[rows, labels] - spread * log_p.mean(1)
        miss = np.exp(log_p, out=log_p)
        miss -= spread / n_classes
        miss[rows, labels] -= 1 - spread
        return each, miss

    return descend(design, n_classes, strengths, loss, _curvature, start, advance)


def _curvature(strength: float) -> float:
    """Return about p (1 - p) of the answers: the weaker the penalty, the surer they are."""
    return float(0.1 * min(1.0, strength) ** 0.25)
