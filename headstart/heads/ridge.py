"""Ridge regression on one-hot targets (Hoerl & Kennard 1970), in closed form: one factorisation for all strengths.

A strength is the penalty s in `mean of sum over classes of (score - target)^2 + s * sum(weight^2)`; the bias is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headstart.heads import linear
from headstart.heads.contract import PLAIN, Advance, Fitted, Training
from headstart.heads.design import Design
from headstart.heads.linear import Linear, on_raw_features

NAME = "ridge"
WORDS = "ridge regression on one-hot targets"
IS_LINEAR, IS_COSTLY = True, False
grid, n_numbers = linear.penalties, linear.n_numbers
_SCALE = 10.0  # brings scores of 0 to 1 to about the range of log probabilities, which calibration starts from


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the head of each strength. See `contract.Kind`."""
    counts, sums = design.class_sums(n_classes)
    basis = design.basis
    along = basis.along(sums.T) / design.n_rows
    for strength in strengths:
        weight = basis.vectors(along / (basis.variances + strength)[:, None])
        advance(1)
        yield on_raw_features(design, _SCALE * weight, _SCALE * counts / design.n_rows)
