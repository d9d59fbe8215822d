"""A network of one hidden layer on the principal components of the standardised features.

Dropout (Srivastava et al. 2014) and AdamW's weight decay (Loshchilov & Hutter 2019) hold it back; training stops where
a part of the rows that it does not learn from gets worse (Prechelt 1998), and the best epoch is kept. A strength is the
decay. The components are folded into the first layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from headstart.heads.contract import PLAIN, Advance, Fitted, Fragment, Training
from headstart.heads.design import Design
from headstart.heads.folds import assign_folds

NAME = "mlp"
WORDS = "one hidden layer of 128 rectified units, dropout, weight decay, early stopping"
IS_LINEAR, IS_COSTLY = False, True
_WIDTH = 128  # hidden units
_COMPONENTS = 256  # principal axes that it reads
_MAX_ROWS = 100_000  # learned from, evenly drawn
_STEPS, _FEWEST, _MOST = 12, 16, 128  # steps an epoch, within these sizes of a batch
_LEARNING_RATE, _MOMENTS, _EPSILON = 3e-3, (0.9, 0.999), 1e-8
_MAX_EPOCHS, _PATIENCE = 40, 4
_PARTS = 7  # one of which decides when to stop


def grid(strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = 0) -> Sequence[float]:
    """Return two decays, whatever the strengths."""
    return (1.0, 0.01)


@dataclass(frozen=True)
class Network:
    """Scores are `max(features @ weight_1 + bias_1, 0) @ weight_2 + bias_2`."""

    weight_1: np.ndarray  # float64 [D, H]
    bias_1: np.ndarray  # float64 [H]
    weight_2: np.ndarray  # float64 [H, C]
    bias_2: np.ndarray  # float64 [C]

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.weight_1.shape[0])

    @property
    def n_classes(self) -> int:
        """C."""
        return int(self.weight_2.shape[1])

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C] for float [N, D]."""
        hidden = np.maximum(features.astype(np.float64) @ self.weight_1 + self.bias_1, 0)
        scores: np.ndarray = hidden @ self.weight_2 + self.bias_2
        return scores

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Network:
        """Return the same head with its scores divided by `temperature`, then `shift`, float [C], added."""
        bias = self.bias_2 / temperature + (0 if shift is None else shift)
        return replace(self, weight_2=self.weight_2 / temperature, bias_2=bias)

    def onnx(self) -> Fragment:
        """Return Gemm, Relu, Gemm."""
        from onnx import helper, numpy_helper

        nodes = [
            helper.make_node("Gemm", ["features", "head_weight_1", "head_bias_1"], ["head_hidden"]),
            helper.make_node("Relu", ["head_hidden"], ["head_rectified"]),
            helper.make_node("Gemm", ["head_rectified", "head_weight_2", "head_bias_2"], ["logits"]),
        ]
        values = {
            "head_weight_1": self.weight_1,
            "head_bias_1": self.bias_1,
            "head_weight_2": self.weight_2,
            "head_bias_2": self.bias_2,
        }
        initializers = [
            numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in values.items()
        ]
        return Fragment(nodes, initializers)


def n_numbers(n_rows: int, n_features: int, n_classes: int) -> int:
    """Return (D + 1) * H + (H + 1) * C."""
    return (n_features + 1) * _WIDTH + (_WIDTH + 1) * n_classes


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Network]:
    """Yield the head of each decay. See `contract.Kind`. Every fit begins anew."""
    rows, turn, labels, stops = _inputs(design, training.seed)
    weights = design.weights_of(labels).astype(np.float32)
    learned, held_out = _Rows(rows[~stops], labels[~stops], weights[~stops]), None
    if stops.any():
        held_out = _Rows(rows[stops], labels[stops], weights[stops])
    for decay in strengths:
        w1, b1, w2, b2 = (part.astype(np.float64) for part in _trained(learned, held_out, n_classes, decay, training))
        weight = (turn @ w1) / design.scale[:, None]
        advance(1)
        yield Network(weight, b1 - design.mean @ weight, w2, b2)


class _Rows(NamedTuple):
    rows: np.ndarray  # float32 [N, P]
    labels: np.ndarray  # int [N]
    weights: np.ndarray  # float32 [N]


def _inputs(design: Design, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows in scaled principal axes, float32 [N, P], how to get there, [D, P], labels, and which rows stop it.

    The rows come sorted by their values, so the order in which they were given changes nothing.
    """
    variances = design.basis.variances[:_COMPONENTS]
    lengths = np.sqrt(variances + variances.mean())
    turn = design.basis.vectors(np.eye(len(design.basis.variances), len(variances)) / lengths)
    step = -(-design.n_rows // _MAX_ROWS)
    blocks = [(block[::step, :-1] @ turn.astype(np.float32), of[::step]) for block, of in design.blocks()]
    rows, labels = (np.concatenate(part) for part in zip(*blocks, strict=True))
    groups = np.concatenate(
        [np.repeat(design.source.groups[block], design.source.per_image)[::step] for block in design.image_blocks]
    )
    order = np.lexsort(np.round(rows[:, :2], 3).T)
    rows, labels, groups = rows[order], labels[order], groups[order]
    return rows, turn, labels, _stopping(labels, groups, seed)


def _stopping(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return which rows decide when to stop, bool [N]: a part of each class that has enough groups for it."""
    _, first = np.unique(groups, return_index=True)
    is_common = np.bincount(labels[first], minlength=int(labels.max()) + 1)[labels] >= _PARTS
    stops = np.zeros(len(labels), bool)
    if is_common.any():
        stops[is_common] = assign_folds(labels[is_common], groups[is_common], _PARTS, seed) == 0
    return stops


def _trained(
    learned: _Rows, held_out: _Rows | None, n_classes: int, decay: float, training: Training
) -> list[np.ndarray]:
    """Return the weights and biases of the epoch with the lowest held-out loss, or of the last one."""
    random = np.random.default_rng(training.seed)
    n_inputs = learned.rows.shape[1]
    parameters = [
        random.normal(0, np.sqrt(2 / n_inputs), (n_inputs, _WIDTH)).astype(np.float32),
        np.zeros(_WIDTH, np.float32),
        np.zeros((_WIDTH, n_classes), np.float32),  # so that renamed classes rename the answers, and no more
        np.zeros(n_classes, np.float32),
    ]
    moments = [(np.zeros_like(part), np.zeros_like(part)) for part in parameters]
    best, best_loss, since, step = parameters, np.inf, 0, 0
    size = int(np.clip(len(learned.labels) // _STEPS, _FEWEST, _MOST))
    for _ in range(_MAX_EPOCHS):
        order = random.permutation(len(learned.labels))
        for first in range(0, len(order), size):
            batch = _Rows(*(part[order[first : first + size]] for part in learned))
            gradient = _gradient(parameters, batch, training, random)
            step += 1
            parameters = _stepped(parameters, gradient, moments, step, decay)
        if held_out is None:
            best = parameters
            continue
        loss = _loss(parameters, held_out)
        since += 1
        if loss < best_loss:
            best, best_loss, since = parameters, loss, 0
        if since >= _PATIENCE:
            break
    return best


def _loss(parameters: list[np.ndarray], held_out: _Rows) -> float:
    w1, b1, w2, b2 = parameters
    log_p = log_softmax(np.maximum(held_out.rows @ w1 + b1, 0) @ w2 + b2, axis=1)
    return -float(held_out.weights @ log_p[np.arange(len(log_p)), held_out.labels])


def _gradient(
    parameters: list[np.ndarray], batch: _Rows, training: Training, random: np.random.Generator
) -> list[np.ndarray]:
    """Return the derivatives of the mean cross-entropy with smoothed labels, with part of the hidden units left out."""
    w1, b1, w2, b2 = parameters
    n = len(batch.labels)
    hidden = np.maximum(batch.rows @ w1 + b1, 0)
    kept = (random.random(hidden.shape, np.float32) >= training.dropout) / np.float32(1 - training.dropout)
    dropped = hidden * kept
    miss = np.exp(log_softmax(dropped @ w2 + b2, axis=1))
    miss -= training.label_smoothing / len(b2)
    miss[np.arange(n), batch.labels] -= 1 - training.label_smoothing
    miss *= (batch.weights / n)[:, None]
    by_hidden = (miss @ w2.T) * kept * (hidden > 0)
    return [batch.rows.T @ by_hidden, by_hidden.sum(0), dropped.T @ miss, miss.sum(0)]


def _stepped(
    parameters: list[np.ndarray],
    gradient: list[np.ndarray],
    moments: list[tuple[np.ndarray, np.ndarray]],
    step: int,
    decay: float,
) -> list[np.ndarray]:
    """Return the parameters after a step of AdamW. The moments are changed in place; biases do not decay."""
    first, second = _MOMENTS
    after = []
    for part, slope, (mean, square) in zip(parameters, gradient, moments, strict=True):
        mean += (1 - first) * (slope - mean)
        square += (1 - second) * (np.square(slope) - square)
        move = (mean / (1 - first**step)) / (np.sqrt(square / (1 - second**step)) + _EPSILON)
        shrunk = part * np.float32(1 - _LEARNING_RATE * decay) if part.ndim == 2 else part
        after.append((shrunk - _LEARNING_RATE * move).astype(np.float32))
    return after
