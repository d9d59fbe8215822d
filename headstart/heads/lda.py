"""Linear discriminant analysis: normal classes of one covariance (Hastie et al. 2009, section 4.3).

The covariance within classes is shrunk towards a multiple of the identity. A strength is the share of the identity,
0..1; 0 stands for the share that Ledoit & Wolf (2004) find best for these rows. One factorisation serves all shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headstart.heads import linear
from headstart.heads.contract import PLAIN, Advance, Fitted, Training
from headstart.heads.design import Design
from headstart.heads.linear import Linear, on_raw_features

NAME = "lda"
WORDS = "linear discriminant analysis, shrunk covariance"
IS_LINEAR, IS_COSTLY = True, False
n_numbers = linear.n_numbers
_LEAST_WITHIN = 1e-3  # of all variance, where a class is a single row
_RARE = 0.5  # rows that a class counts for at least, so that one without rows in a fold has a finite prior


def grid(strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = 0) -> Sequence[float]:
    """Return shares of the identity, whatever the strengths."""
    return (0.9, 0.5, 0.2, 0.05, 0.0)


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the head of each share. See `contract.Kind`."""
    counts, sums = design.class_sums(n_classes)
    variances = design.basis.variances
    means = sums / np.maximum(counts, 1e-9)[:, None]  # [C, D]
    turned = design.basis.along(means.T)  # [R, C]
    priors = counts / counts.sum()
    prior = np.maximum(counts, _RARE) / counts.sum()
    for strength in strengths:
        shrinkage = strength or _shrinkage(design, means, variances, turned, priors)
        weight = solved(variances, turned, priors, shrinkage, design.n_features)
        bias = np.log(prior) - 0.5 * np.sum(turned * weight, axis=0)
        advance(1)
        yield on_raw_features(design, design.basis.vectors(weight), bias)


def solved(
    variances: np.ndarray, means: np.ndarray, priors: np.ndarray, shrinkage: float, n_features: int
) -> np.ndarray:
    """Return the shrunk covariance within classes, inverted, times the class means, float [R, C] in the principal axes.

    The covariance within classes is that of all rows less that of the class means, so one factorisation serves
    (Woodbury).
    """
    kept = 1 - shrinkage
    trace = variances.sum() - float(np.sum(np.square(means) @ priors))
    within = max(trace, _LEAST_WITHIN * float(variances.sum()))
    diagonal = kept * variances + shrinkage * within / n_features
    if len(priors) > len(diagonal):  # more classes than axes: the smaller system is that of the axes
        return np.asarray(np.linalg.solve(np.diag(diagonal) - kept * (means * priors) @ means.T, means))
    scaled = means / diagonal[:, None]
    correction = np.eye(len(priors)) - kept * priors[:, None] * (means.T @ scaled)
    return np.linalg.solve(correction.T, scaled.T).T


def _shrinkage(
    design: Design, means: np.ndarray, variances: np.ndarray, turned: np.ndarray, priors: np.ndarray
) -> float:
    """Return Ledoit & Wolf's share of the identity, 0..1, for the rows less their class means."""

    def of_block(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float]:
        apart = rows[:, :-1] - means[labels].astype(np.float32)
        return (float(weights @ np.square(np.einsum("ij,ij->i", apart, apart, dtype=np.float64))),)

    (fourth,) = design.total(of_block)
    if len(priors) > len(variances):  # the smaller of two products with the same norm
        between, lengths = float(np.square((turned * priors) @ turned.T).sum()), np.square(turned).sum(0)
    else:
        inner = turned.T @ turned
        between, lengths = float(priors @ np.square(inner) @ priors), np.diag(inner)
    squared = float(
        np.sum(np.square(variances)) - 2 * np.sum((variances @ np.square(turned)) * priors) + between
    )  # of the covariance's Frobenius norm
    trace = float(variances.sum() - np.sum(lengths * priors))
    if trace < _LEAST_WITHIN * float(variances.sum()):
        return 1.0  # a class is a single row: what is left within classes are rounding errors
    noise = (fourth / design.n_rows - squared) / design.n_rows
    spread = squared - trace**2 / design.n_features
    return float(np.clip(noise / spread, 1e-6, 1)) if spread > 0 else 1.0
