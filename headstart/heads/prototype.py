"""The class whose mean direction is nearest, by the cosine (the nearest class mean of Mensink et al. 2013, section 3).

The cosine divides a row's scores by the length of the row, which changes no answer. It is left out, and what remains is
linear. It has no strength to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headstart.heads import linear
from headstart.heads.contract import PLAIN, Advance, Fitted, Training
from headstart.heads.design import Design
from headstart.heads.linear import Linear, on_raw_features

NAME = "prototype"
WORDS = "nearest class mean, by the cosine"
IS_LINEAR, IS_COSTLY = True, False
n_numbers = linear.n_numbers


def grid(strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = 0) -> Sequence[float]:
    """Return a single one."""
    return (0.0,)


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the one head. See `contract.Kind`."""
    _, sums = design.class_sums(n_classes)
    directions = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    advance(1)
    yield on_raw_features(design, directions.T, np.zeros(n_classes))
