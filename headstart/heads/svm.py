"""A linear support vector machine with squared hinge loss, each class against the rest (Fan et al. 2008, LIBLINEAR).

A strength is the penalty s in `mean over rows of sum over classes of max(0, 1 - t * score)^2 + s/2 * sum(weight^2)`,
where t is 1 for the row's class and -1 for the others; the bias is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headstart.heads import linear
from headstart.heads.contract import PLAIN, Advance, Fitted, Training
from headstart.heads.descent import descend
from headstart.heads.design import Design
from headstart.heads.linear import Linear

NAME = "svm"
WORDS = "linear support vector machine, squared hinge, one against the rest, L2"
IS_LINEAR, IS_COSTLY = True, True
grid, n_numbers = linear.penalties, linear.n_numbers
_CURVATURE = 0.5  # 2 for rows within the margin, 0 for those beyond it, which are most


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the head of each strength, each started where the one before ended. See `contract.Kind`."""

    def loss(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        side = np.full_like(scores, -1)
        side[np.arange(len(labels)), labels] = 1
        lacking = np.maximum(1 - side * scores, 0)
        return np.square(lacking).sum(1), -2 * side * lacking

    return descend(design, n_classes, strengths, loss, lambda strength: _CURVATURE, start, advance)
