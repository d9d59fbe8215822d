"""Multinomial logistic regression with an L2 penalty on standardised features, by L-BFGS.

A strength is the penalty s in `mean cross-entropy + s/2 * sum(weight^2)`; the bias is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from headstart.heads.contract import Advance, Fitted
from headstart.heads.design import Design
from headstart.heads.linear import Linear

NAME = "softmax"
WORDS = "multinomial logistic regression, L2, standardiser and temperature folded in"

_OPTIONS = {"maxiter": 500, "gtol": 1e-4, "ftol": 1e-9, "maxcor": 5}


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Linear]:
    """Yield the head of each strength, each started where the one before ended. See `contract.Kind`."""
    parameters = np.zeros((n_classes, design.n_features + 1))
    if start is not None:
        weight, bias = design.on_standardised(cast(Linear, start))
        parameters = np.column_stack([weight.T, bias])
    for strength in strengths:
        parameters = _minimum(design, parameters, strength)
        advance(1)
        yield design.on_raw_features(parameters[:, :-1].T.copy(), parameters[:, -1].copy())


def _minimum(design: Design, start: np.ndarray, strength: float) -> np.ndarray:
    """Return float64 [C, D + 1], the bias last."""
    penalty = np.append(np.full(design.n_features, strength), 0)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = flat.reshape(start.shape)
        value, gradient = _cross_entropy(design, parameters)
        return value + 0.5 * float(np.sum(penalty * parameters**2)), (gradient + penalty * parameters).ravel()

    found: np.ndarray = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=_OPTIONS).x
    return found.reshape(start.shape)


def _cross_entropy(design: Design, parameters: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean cross-entropy in nats a row, and its gradient, for float64 [C, D + 1]."""
    narrow = parameters.T.astype(np.float32)
    classes = np.arange(len(parameters))

    def of_block(block: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(block @ narrow, axis=1)
        miss = np.exp(log_p) - (labels[:, None] == classes)
        loss = -log_p[np.arange(len(labels)), labels].mean(dtype=np.float64)
        return float(loss) * len(labels), (miss.T.astype(np.float32) @ block).astype(np.float64)

    loss, gradient = design.total(of_block)
    return loss / design.n_rows, gradient / design.n_rows
