"""Linear heads that minimise a convex loss and an L2 penalty, one strength after the other.

L-BFGS (Nocedal & Wright 2006, section 7.2) in the principal axes of the rows, each axis scaled by the curvature that
loss and penalty have along it. So scaled, the axes of largest and of smallest variance need steps of the same length,
and a tenth of the iterations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np

from headstart.heads.contract import Advance, Fitted
from headstart.heads.design import Design
from headstart.heads.linear import Linear, on_raw_features, on_standardised

# Takes scores float32 [B, C] and labels int [B]; returns the loss of each row, float32 [B], and its derivative by the
# scores, float32 [B, C].
Loss = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_GRADIENT = 1e-4  # its largest component, where descent ends
_GAIN = 1e-8  # share of the loss that a step has to gain
_MEMORY = 10  # steps, or as many as `_MEMORY_BYTES` hold
_MEMORY_BYTES, _FEWEST_STEPS = 400_000_000, 3
SCORES_AT_ONCE = 16_000_000  # numbers of rows times classes: more rows are looked at in parts
_MAX_STEPS, _MAX_HALVINGS = 500, 20
_SUFFICIENT = 1e-4  # of the decrease that the slope promises


def descend(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    loss: Loss,
    curvature: Callable[[float], float],
    start: Fitted | None,
    advance: Advance,
) -> Iterator[Linear]:
    """Yield the minimum of `mean loss + strength / 2 * sum(weight^2)` over standardised rows for each strength.

    The bias is free. `curvature` is about the second derivative of the loss by a score at the minimum of a strength.
    """
    basis = design.basis
    weight, bias = np.zeros((len(basis.variances), n_classes)), np.zeros(n_classes)
    if start is not None:
        weight, bias = on_standardised(design, cast(Linear, start))
        weight = basis.along(weight)
    of_parameters = _in_axes(design, loss) if design.is_held else _in_features(design, loss)
    for strength in strengths:
        bend = curvature(strength)
        length = 1 / np.sqrt(bend * basis.variances + strength)
        weight, bias = _minimum(of_parameters, weight, bias, strength, length, 1 / np.sqrt(bend))
        advance(1)
        yield on_raw_features(design, basis.vectors(weight), bias)


# Takes weight [R, C] and bias [C] in the principal axes; returns the mean loss and its derivatives by both.
_Value = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray, np.ndarray]]


def _in_axes(design: Design, loss: Loss) -> _Value:
    """Turn the rows into the axes, once: where memory holds them."""
    rows = design.coordinates
    labels = np.concatenate([labels for _, labels in design.blocks()])
    weights = (design.weights_of(labels) / design.n_rows).astype(np.float32)

    def of_part(part: slice, weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        each, by_scores = loss(rows[part] @ weight + bias, labels[part])
        by_scores *= weights[part, None]
        by_bias = by_scores.sum(0, dtype=np.float64)
        return float(each.astype(np.float64) @ weights[part]), (rows[part].T @ by_scores).astype(np.float64), by_bias

    def value(weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        step = max(1, SCORES_AT_ONCE // len(bias))
        parts = [slice(start, start + step) for start in range(0, len(rows), step)]
        low_weight, low_bias = weight.astype(np.float32), bias.astype(np.float32)
        loss_of_all, by_weight, by_bias = of_part(parts[0], low_weight, low_bias)
        for part in parts[1:]:
            more, more_by_weight, more_by_bias = of_part(part, low_weight, low_bias)
            loss_of_all += more
            by_weight += more_by_weight
            by_bias += more_by_bias
        return loss_of_all, by_weight, by_bias

    return value


def n_steps_kept(n_numbers: int) -> int:
    """Return how many steps L-BFGS remembers of so many parameters, two arrays float64 each."""
    return min(_MEMORY, max(_FEWEST_STEPS, _MEMORY_BYTES // (16 * max(n_numbers, 1))))


def _in_features(design: Design, loss: Loss) -> _Value:
    """Turn the weights into the features, at every pass: where rows are read again."""
    basis = design.basis

    def value(weight: np.ndarray, bias: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        both = np.vstack([basis.vectors(weight), bias]).astype(np.float32)

        def of_block(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
            each, by_scores = loss(rows @ both, labels)
            by_scores *= weights[:, None].astype(np.float32)
            return float(each.astype(np.float64) @ weights), (rows.T @ by_scores).astype(np.float64)

        total, by_both = design.total(of_block)
        by_both /= design.n_rows
        return total / design.n_rows, basis.along(by_both[:-1]), by_both[-1]

    return value


def _minimum(
    value: _Value, weight: np.ndarray, bias: np.ndarray, strength: float, length: np.ndarray, bias_length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight and the bias where the penalised loss is least, found in steps of these lengths."""
    lengths = np.append(length, bias_length)[:, None]

    def penalised(point: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = point * lengths
        loss, by_weight, by_bias = value(scaled[:-1], scaled[-1])
        loss += 0.5 * strength * float(np.vdot(scaled[:-1], scaled[:-1]))
        gradient = np.vstack([by_weight + strength * scaled[:-1], by_bias])
        gradient *= lengths
        return loss, gradient

    scaled = lbfgs(penalised, np.vstack([weight, bias]) / lengths) * lengths
    return scaled[:-1], scaled[-1]


def lbfgs(value: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    """Return the minimum of a smooth convex function, float64 of the shape of `start`.

    `value` returns the function and its gradient. scipy's L-BFGS-B finds the same, but holds Python's lock while it
    does, so that folds wait for each other.
    """
    point, (lowest, gradient) = start, value(start)
    steps: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=n_steps_kept(start.size))
    for _ in range(_MAX_STEPS):
        if np.abs(gradient).max() <= _GRADIENT:
            break
        direction = _direction(gradient, steps)
        slope = float(np.vdot(gradient, direction))
        length = 1.0 if steps else min(1.0, 1 / float(np.abs(gradient).sum()))
        for _ in range(_MAX_HALVINGS):
            there = point + length * direction
            loss, slopes = value(there)
            if loss <= lowest + _SUFFICIENT * length * slope:
                break
            length /= 2
        else:
            break  # as low as float32 can tell
        moved, turned = there - point, slopes - gradient
        if (curvature := float(np.vdot(moved, turned))) > 0:
            steps.append((moved, turned, curvature))
        gained, point, lowest, gradient = lowest - loss, there, loss, slopes
        if gained <= _GAIN * max(abs(lowest), 1e-3):
            break
    return point


def _direction(gradient: np.ndarray, steps: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Return where to go: the two loops of Nocedal & Wright's algorithm 7.4."""
    direction, shares = -gradient, []
    for moved, turned, curvature in reversed(steps):
        shares.append(float(np.vdot(moved, direction)) / curvature)
        direction = direction - shares[-1] * turned
    if steps:
        _, turned, curvature = steps[-1]
        direction = direction * (curvature / float(np.vdot(turned, turned)))
    for (moved, turned, curvature), share in zip(steps, reversed(shares), strict=True):
        direction = direction + (share - float(np.vdot(turned, direction)) / curvature) * moved
    return direction
