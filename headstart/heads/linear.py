"""A head whose scores are linear in the features: one Gemm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.heads.contract import Fragment


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

    def calibrated(self, temperature: float) -> Linear:
        """Return the same head with its scores divided by `temperature`."""
        return Linear(self.weight / temperature, self.bias / temperature)

    def onnx(self) -> Fragment:
        """Return one Gemm in float32."""
        from onnx import helper, numpy_helper

        gemm = helper.make_node("Gemm", ["features", "head_weight", "head_bias"], ["logits"])
        values = {"head_weight": self.weight, "head_bias": self.bias}
        initializers = [
            numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in values.items()
        ]
        return Fragment([gemm], initializers)
