"""Small ONNX graphs as other frameworks write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.base.files import sha256_of

PX, CLASSES, CHANNELS = 32, 5, (8, 12)
PREPARED = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "crop_fraction": 0.8, "interpolation": "bilinear"}


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)


def weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    """Return drawn tensors by name, the same every time."""
    random = np.random.default_rng(0)
    return [
        numpy_helper.from_array((random.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32), name)
        for name, shape in shapes.items()
    ]


def convolutions(first: str) -> list[onnx.NodeProto]:
    """Return two convolutions from [N, 3, H, W] to `pool` [N, D, 1, 1]."""
    return [
        node("Conv", [first, "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"]),
        node("GlobalAveragePool", ["r2"], ["pool"]),
    ]


CONVOLUTIONS = {"w1": (CHANNELS[0], 3, 3, 3), "w2": (CHANNELS[1], CHANNELS[0], 3, 3)}


def model(
    nodes: Sequence[onnx.NodeProto],
    image: Sequence[int | str | None] = ("N", 3, PX, PX),
    output: str = "logits",
    tensors: Sequence[onnx.TensorProto] = (),
    type_: int = TensorProto.FLOAT,
    opset: int = 17,
    width: int = CLASSES,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("images", type_, list(image))],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        list(tensors),
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(each, 1) for each in sorted({each.domain for each in nodes} - {""})]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def nchw(**changes: Any) -> onnx.ModelProto:
    """Return a classifier as PyTorch exports one: flatten, Gemm."""
    nodes = [
        *convolutions("images"),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["logits"], transB=1),
    ]
    shapes = {**CONVOLUTIONS, "w3": (CLASSES, CHANNELS[1]), "b3": (CLASSES,)}
    return model(nodes, tensors=weights(**shapes), **changes)


def nhwc(**changes: Any) -> onnx.ModelProto:
    """Return a classifier as tf2onnx writes Keras' applications: Transpose, Squeeze, MatMul, Add, Softmax."""
    nodes = [
        node("Transpose", ["images"], ["transposed"], perm=[0, 3, 1, 2]),
        *convolutions("transposed"),
        node("Squeeze", ["pool", "axes"], ["avg_pool/Mean:0"]),
        node("MatMul", ["avg_pool/Mean:0", "w3"], ["mm"]),
        node("Add", ["mm", "b3"], ["sum"]),
        node("Softmax", ["sum"], ["logits"]),
    ]
    shapes = {**CONVOLUTIONS, "w3": (CHANNELS[1], CLASSES), "b3": (CLASSES,)}
    tensors = [*weights(**shapes), numpy_helper.from_array(np.array([2, 3]), "axes")]
    return model(nodes, tensors=tensors, **{"image": ("N", PX, PX, 3), **changes})


def saved(graph: onnx.ModelProto, path: Path) -> dict[str, str]:
    """Write the graph, and return what params.yaml says of it."""
    onnx.save(graph, path)
    return {"weights": str(path), "sha256": sha256_of(path)}
