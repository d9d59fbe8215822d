"""A head behind an affine map of its features: one Gemm where the head is one, else nodes in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.heads.contract import Fitted, Fragment
from headstart.heads.linear import Linear
from headstart.heads.novelty import Novelty
from headstart.onnx import runtime

if TYPE_CHECKING:
    import onnx

_LEAST = 1e-30  # probability


@dataclass(frozen=True)
class Map:
    """Features x become `x * scale + bias + (x @ inner) @ outer`: an axis at a time, and along a few directions."""

    scale: np.ndarray  # float64 [D]
    bias: np.ndarray  # float64 [D]
    inner: np.ndarray  # float64 [D, K]
    outer: np.ndarray  # float64 [K, D]

    @classmethod
    def of_axes(cls, scale: np.ndarray, bias: np.ndarray) -> Map:
        """Return the map that treats every axis alone."""
        return cls(scale, bias, np.zeros((len(scale), 0)), np.zeros((0, len(scale))))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, D] for float [N, D]."""
        values = features.astype(np.float64, copy=False)
        moved: np.ndarray = values * self.scale + self.bias
        return moved + (values @ self.inner) @ self.outer if self.inner.shape[1] else moved


@dataclass(frozen=True)
class Moved:
    """A head that is not linear, and the map in front of it. See `heads.contract.Fitted`."""

    head: Fitted
    map: Map

    @property
    def n_features(self) -> int:
        """D."""
        return len(self.map.scale)

    @property
    def n_classes(self) -> int:
        """C."""
        return self.head.n_classes

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C]."""
        return self.head.scores(self.map(features))

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Moved:
        """Return the same with its scores divided by `temperature`, then `shift`, float [C], added."""
        return replace(self, head=self.head.calibrated(temperature, shift))

    def onnx(self) -> Fragment:
        """Return the nodes of the map, which the head's read in place of the features."""
        from onnx import helper

        fragment = self.head.onnx()
        for node in fragment.nodes:
            node.input[:] = ["moved" if name == "features" else name for name in node.input]
        values = {"map_scale": self.map.scale, "map_bias": self.map.bias}
        last = "along_axes" if self.map.inner.shape[1] else "moved"
        nodes = [
            helper.make_node("Mul", ["features", "map_scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "map_bias"], [last]),
        ]
        if self.map.inner.shape[1]:
            values |= {"map_inner": self.map.inner, "map_outer": self.map.outer}
            nodes += [
                helper.make_node("MatMul", ["features", "map_inner"], ["inside"]),
                helper.make_node("MatMul", ["inside", "map_outer"], ["outside"]),
                helper.make_node("Add", ["along_axes", "outside"], ["moved"]),
            ]
        return Fragment([*nodes, *fragment.nodes], [*_tensors(values), *fragment.initializers])


def behind(head: Fitted, through: Map) -> Fitted:
    """Return the head that reads features through the map, as one Gemm where `head` is one."""
    if not isinstance(head, Linear):
        return Moved(head, through)
    weight = through.scale[:, None] * head.weight + through.inner @ (through.outer @ head.weight)
    return Linear(weight, through.bias @ head.weight + head.bias)


@dataclass(frozen=True)
class Given:
    """A head as head.onnx holds it: its scores are log probabilities, then a temperature and a shift. See `Fitted`."""

    file: Path
    n_features: int
    n_classes: int
    temperature: float = 1.0
    shift: np.ndarray | None = None  # float64 [C]

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C]."""
        rows = np.ascontiguousarray(features, np.float32)
        found = runtime.session(self.file).run(["probabilities"], {"features": rows})[0].astype(np.float64)
        scores: np.ndarray = np.log(np.maximum(found, _LEAST)) / self.temperature
        return scores if self.shift is None else scores + self.shift

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Given:
        """Return the same head with its scores divided by `temperature`, then `shift`, float [C], added."""
        before = np.zeros(self.n_classes) if self.shift is None else self.shift
        after = before / temperature + (0 if shift is None else shift)
        return replace(self, temperature=self.temperature * temperature, shift=after)

    def onnx(self) -> Fragment:
        """Return the nodes that give the file's logits, and those that divide and shift them."""
        import onnx

        graph = onnx.load(self.file).graph
        needed: set[str] = {"logits"}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                nodes.insert(0, node)
                needed.update(node.input)
        nodes[-1].output[:] = ["given_logits"]
        nodes += [
            onnx.helper.make_node("Div", ["given_logits", "given_temperature"], ["given_divided"]),
            onnx.helper.make_node("Add", ["given_divided", "given_shift"], ["logits"]),
        ]
        shift = np.zeros(self.n_classes) if self.shift is None else self.shift
        own = _tensors({"given_temperature": np.array(self.temperature), "given_shift": shift})
        return Fragment(nodes, [*(tensor for tensor in graph.initializer if tensor.name in needed), *own])


def read(file: Path) -> tuple[Fitted, Novelty]:
    """Return the head of a head.onnx, `Linear` if it is one Gemm, and how it tells novel images."""
    import onnx

    graph = onnx.load(file).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    novelty = Novelty(held["centres"], held["similarities"])
    last = next(node for node in graph.node if "logits" in node.output)
    if list(last.input) == ["features", "head_weight", "head_bias"]:
        return Linear(held["head_weight"].astype(np.float64), held["head_bias"].astype(np.float64)), novelty
    return Given(file, *novelty.centres.shape), novelty


def _tensors(values: Mapping[str, np.ndarray]) -> list[onnx.TensorProto]:
    from onnx import numpy_helper

    return [numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name) for name, value in values.items()]
