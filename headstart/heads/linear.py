"""A head whose scores are linear in the features: one Gemm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.heads.contract import Fragment
from headstart.heads.design import Design


@dataclass(frozen=True)
class Linear:
    """Scores are `features @ weight + bias`."""

    weight: np.ndarray  # float64 [D, C]
    bias: np.ndarray  # float64 [C]

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.weight.shape[0])

    @property
    def n_classes(self) -> int:
        """C."""
        return int(self.weight.shape[1])

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C] for float [N, D]."""
        scores: np.ndarray = features.astype(np.float64) @ self.weight + self.bias
        return scores

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Linear:
        """Return the same head with its scores divided by `temperature`, then `shift`, float [C], added."""
        return Linear(self.weight / temperature, self.bias / temperature + (0 if shift is None else shift))

    def onnx(self) -> Fragment:
        """Return one Gemm in float32."""
        from onnx import helper, numpy_helper

        gemm = helper.make_node("Gemm", ["features", "head_weight", "head_bias"], ["logits"])
        values = {"head_weight": self.weight, "head_bias": self.bias}
        initializers = [
            numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in values.items()
        ]
        return Fragment([gemm], initializers)


def penalties(strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = 0) -> Sequence[float]:
    """Return the grid of a kind with an L2 penalty: all strengths."""
    return sorted(set(strengths), reverse=True)


def n_numbers(n_rows: int, n_features: int, n_classes: int) -> int:
    """Return (D + 1) * C: what head.onnx holds."""
    return (n_features + 1) * n_classes


def on_raw_features(design: Design, weight: np.ndarray, bias: np.ndarray) -> Linear:
    """Return the head that does on features what weight [D, C] and bias [C] do on the design's standardised ones."""
    raw = weight / design.scale[:, None]
    return Linear(raw, bias - design.mean @ raw)


def on_standardised(design: Design, head: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Undo `on_raw_features`."""
    return head.weight * design.scale[:, None], head.bias + design.mean @ head.weight


def weighted_sum(
    heads: Sequence[Linear], weights: Sequence[float], columns: Sequence[np.ndarray], width: int
) -> Linear:
    """Return one head whose scores are the weighted sum of those of `heads`.

    Each head reads `columns`, int [D of it], of the `width` features that the sum reads.
    """
    total = Linear(np.zeros((width, heads[0].n_classes)), np.zeros(heads[0].n_classes))
    for head, weight, where in zip(heads, weights, columns, strict=True):
        total.weight[where] += weight * head.weight
        total.bias[:] += weight * head.bias
    return total
