"""The ONNX pieces: resize, backbone and head; how they are checked, written, and joined to the model.

`resize`    `image` uint8 [N, H, W, 3], any H and W -> `pixels` uint8 [N, S, S, 3]
`backbone`  `pixels` -> `features` float32 [N, D]; the crop to the input size and the normalisation are its first nodes
`head`      `features` -> `probabilities` float32 [N, C], `label_index` int64 [N], `novelty` float32 [N]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.base.errors import CheckError

if TYPE_CHECKING:
    import onnx

OPSET = 18  # the lowest that torch's exporter writes; the lower, the older the runtimes that can run the model
IR_VERSION = 10
PLAIN = {  # operators that `resize` and `head` consist of; implementations of them agree
    *("Abs", "Add", "ArgMax", "Cast", "Clip", "Concat", "Div", "Equal", "Floor", "Gather", "Gemm", "Less", "Log"),
    *("LpNormalization", "MatMul", "Max", "Min", "Mul", "Range", "ReduceMax", "ReduceMean", "ReduceSum", "Relu"),
    *("Reshape", "Shape", "Slice", "Softmax", "Split", "Squeeze", "Sub", "TopK", "Transpose", "Unsqueeze", "Where"),
}


def join(
    resize: onnx.ModelProto, backbone: onnx.ModelProto, head: onnx.ModelProto, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the exported model: the three pieces end to end, their nodes untouched."""
    from onnx import compose, helper

    pieces = [
        compose.add_prefix(piece, f"{piece.graph.name}/", rename_inputs=False, rename_outputs=False)
        for piece in (resize, backbone, head)
    ]
    model = pieces[0]
    for piece, tensor in zip(pieces[1:], ("pixels", "features"), strict=True):
        model = compose.merge_models(model, piece, io_map=[(tensor, tensor)])
    graph = model.graph
    graph.name = "headstart"
    joined = finished(graph, model.functions)
    helper.set_model_props(joined, dict(metadata))
    return joined


def narrowed(backbone: onnx.ModelProto, levels: Sequence[int]) -> onnx.ModelProto:
    """Return the backbone with the levels of these numbers alone, ascending; nodes that only others need are dropped.

    Its features are one Concat of all levels. CheckError where they are not.
    """
    import onnx

    graph = onnx.GraphProto()
    graph.CopyFrom(backbone.graph)
    last = graph.node[-1]
    if last.op_type != "Concat" or list(last.output) != ["features"] or max(levels) >= len(last.input):
        raise CheckError("backbone.onnx does not end in its levels. Run `dvc repro --force backbone`.")
    kept = [last.input[number] for number in levels]
    if len(kept) == 1:
        last.CopyFrom(onnx.helper.make_node("Identity", kept, ["features"]))
    else:
        del last.input[:]
        last.input.extend(kept)
    needed, nodes = {"features"}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    output = onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["N", None])
    return finished(onnx.helper.make_graph(nodes[::-1], graph.name, graph.input, [output], tensors), backbone.functions)


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Return the model's bytes, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def int64(name: str, values: list[int]) -> onnx.TensorProto:
    """Return an initializer."""
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.int64), name)


def finished(graph: onnx.GraphProto, functions: Any = ()) -> onnx.ModelProto:
    """Return the model of a graph, checked."""
    import onnx

    imports = [onnx.helper.make_opsetid("", OPSET)]
    imports += [onnx.helper.make_opsetid(domain, 1) for domain in sorted({function.domain for function in functions})]
    model = onnx.helper.make_model(
        graph, producer_name="headstart", ir_version=IR_VERSION, opset_imports=imports, functions=list(functions)
    )
    onnx.checker.check_model(model)
    return model
