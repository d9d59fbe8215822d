"""The ONNX pieces: resize, backbone and head; how they are checked, written, and joined to the model.

`resize`    `image` uint8 [N, H, W, 3], any H and W -> `pixels` uint8 [N, S, S, 3]
`backbone`  `pixels` -> `features` float32 [N, D]; the crop to the input size and the normalisation are its first nodes
`head`      `features` -> `probabilities` float32 [N, C], `label_index` int64 [N], `novelty` float32 [N]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

OPSET = 18  # the first whose Resize knows antialiasing; the lower, the older the runtimes that can run the model
IR_VERSION = 10


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
