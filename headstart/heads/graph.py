"""The head as an ONNX piece: `features` -> `probabilities`, `label_index` and `novelty`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headstart.onnx.pieces import finished, int64

if TYPE_CHECKING:
    import onnx

    from headstart.heads.contract import Fitted
    from headstart.heads.novelty import Novelty


def head_graph(head: Fitted, novelty: Novelty) -> onnx.ModelProto:
    """Return a calibrated head, softmax and argmax, and beside them what `novelty.of` computes."""
    from onnx import TensorProto, helper, numpy_helper

    own = head.onnx()
    nodes = [
        *own.nodes,
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
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", head.n_features])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", head.n_classes]),
            helper.make_tensor_value_info("label_index", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["N"]),
        ],
        [
            *own.initializers,
            numpy_helper.from_array(np.ascontiguousarray(novelty.centres, np.float32), "centres"),
            numpy_helper.from_array(np.ascontiguousarray(novelty.similarities, np.float32), "similarities"),
            int64("last_axis", [1]),
        ],
    )
    return finished(graph)
