"""The head as an ONNX piece: `features` -> `probabilities`, `label_index` and `novelty`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from headstart.heads.novelty import Novelty, of_tensors
from headstart.onnx.pieces import finished, int64

if TYPE_CHECKING:
    import onnx


def head_graph(weight: np.ndarray, bias: np.ndarray, novelty: Novelty) -> onnx.ModelProto:
    """Return Gemm, softmax and argmax, and beside them what `novelty.of` computes.

    `weight` float32 [D, C], `bias` float32 [C], calibration folded into both.
    """
    from onnx import TensorProto, helper, numpy_helper

    n_features, n_classes = weight.shape
    nodes = [
        helper.make_node("Gemm", ["features", "head_weight", "head_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["label_index"], axis=1, keepdims=0),
        helper.make_node("LpNormalization", ["features"], ["direction"], axis=1, p=2),
        helper.make_node("MatMul", ["direction", "centres"], ["cosines"]),
        helper.make_node("ReduceMax", ["cosines", "last_axis"], ["nearest"], keepdims=1),
        helper.make_node("Less", ["nearest", "similarities"], ["is_farther"]),
        helper.make_node("Cast", ["is_farther"], ["farther"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["farther", "last_axis"], ["novelty"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", n_features])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", n_classes]),
            helper.make_tensor_value_info("label_index", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N"]),
        ],
        [
            numpy_helper.from_array(np.ascontiguousarray(weight, np.float32), "head_weight"),
            numpy_helper.from_array(np.ascontiguousarray(bias, np.float32), "head_bias"),
            numpy_helper.from_array(np.ascontiguousarray(novelty.centres, np.float32), "centres"),
            numpy_helper.from_array(np.ascontiguousarray(novelty.similarities, np.float32), "similarities"),
            int64("last_axis", [1]),
        ],
    )
    return finished(graph)


def head_of(tensors: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the graph of a head.safetensors."""
    return head_graph(tensors["weight"], tensors["bias"], of_tensors(tensors))
