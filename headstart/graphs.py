"""Builds, joins, checks and runs the ONNX pieces: resize, backbone, head. What trains is what ships.

`resize`    `image` uint8 [N, H, W, 3], any H and W -> `pixels` uint8 [N, S, S, 3]
`backbone`  `pixels` -> `features` float32 [N, D]; the crop to the input size and the normalisation are its first nodes
`head`      `features` -> `probabilities` float32 [N, C], `label_index` int64 [N], `novelty` float32 [N]
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.errors import CheckError

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    import torch
    from torch import nn

    from headstart.backbones import Preprocessing

OPSET = 18  # the first whose Resize knows antialiasing; the lower, the older the runtimes that can run the model
IR_VERSION = 10


def resize_graph(size_px: int, interpolation: str) -> onnx.ModelProto:
    """Return the graph that cuts the centre square out and resizes it, antialiased, to `size_px`.

    Cutting first keeps the cost of a 1 x 20000 image small. The result is Pillow's on the same square to within two
    levels, but for the outermost pixels of a bilinear reduction: Pillow gives weight to no pixel outside the image, and
    onnxruntime can do that for the cubic kernel alone.
    """
    from onnx import TensorProto, helper

    kernels: dict[str, dict[str, Any]] = {
        "bilinear": {"mode": "linear"},
        "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    }
    nodes = [
        helper.make_node("Shape", ["image"], ["height_width"], start=1, end=3),
        helper.make_node("ReduceMin", ["height_width"], ["side"], keepdims=1),
        helper.make_node("Sub", ["height_width", "side"], ["margins"]),
        helper.make_node("Div", ["margins", "two"], ["starts"]),
        helper.make_node("Add", ["starts", "side"], ["ends"]),
        helper.make_node("Slice", ["image", "starts", "ends", "height_width_axes"], ["square"]),
        helper.make_node("Shape", ["image"], ["n_images"], start=0, end=1),
        helper.make_node("Concat", ["n_images", "size"], ["resized_shape"], axis=0),
        helper.make_node(
            "Resize",
            ["square", "", "", "resized_shape"],
            ["pixels"],
            antialias=1,
            coordinate_transformation_mode="half_pixel",
            **kernels[interpolation],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size_px, size_px, 3])],
        [
            int64("two", [2]),
            int64("height_width_axes", [1, 2]),
            int64("size", [size_px, size_px, 3]),
        ],
    )
    return finished(graph)


def from_pixels(module: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """Return crop, normalisation and `module` (float [B, 3, I, I] -> [B, D]) as one module on `pixels`."""
    import torch

    side, crop = preprocessing.resize_px, preprocessing.input_px
    scale, shift = normalisation(preprocessing)
    start = round((side - crop) / 2)  # torchvision.transforms.functional.center_crop

    class FromPixels(torch.nn.Module):
        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            square = pixels[:, start : start + crop, start : start + crop].permute(0, 3, 1, 2).float()
            features: torch.Tensor = self.module(square * self.scale + self.shift)
            return features

    return FromPixels().eval()


def trace(module: nn.Module, preprocessing: Preprocessing) -> torch.export.ExportedProgram:
    """Return what `from_pixels` returns as a program that can be exported."""
    import torch

    for layer in module.modules():
        if getattr(layer, "inplace", False) is True:
            # The same values. ONNX has no operators that work in place, and taking them apart takes seconds.
            layer.inplace = False  # type: ignore[assignment]
    side = preprocessing.resize_px
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        return torch.export.export(
            from_pixels(module, preprocessing),
            (example,),
            dynamic_shapes={"pixels": {0: torch.export.Dim("N", min=1)}},
            strict=False,
        )


def normalisation(preprocessing: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what pixels in 0..255 are multiplied by and what is added then, float32 [3, 1, 1] each."""
    import torch

    std = torch.tensor(preprocessing.std, dtype=torch.float64)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
    return (1 / (255 * std)).float()[:, None, None], (-mean / std).float()[:, None, None]


def backbone_graph(program: torch.export.ExportedProgram) -> onnx.ModelProto:
    """Return the ONNX graph of what `trace` returned."""
    import torch

    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["features"],
            verbose=False,
        )
    if exported is None:
        raise CheckError("torch.onnx.export returned nothing. A graph was expected. Try another backbone.name.")
    graph = exported.model_proto.graph
    for node in graph.node:  # stack traces of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.value_info[:], graph.metadata_props[:]
    graph.name = "backbone"
    return finished(graph, exported.model_proto.functions)


def join(
    resize: onnx.ModelProto, backbone: onnx.ModelProto, head: onnx.ModelProto, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Return the one graph that ships: the three pieces end to end, their nodes untouched."""
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


def session(model: Path | bytes, threads: int = 0) -> onnxruntime.InferenceSession:
    """Return a CPU session; `threads` 0 lets onnxruntime take every core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class
        name = "the model" if isinstance(model, bytes) else str(model)
        raise CheckError(f"{name} cannot be loaded by onnxruntime {onnxruntime.__version__}: {error}") from None


class Difference(NamedTuple):
    """How far two feature matrices lie apart."""

    absolute: float
    relative: float  # to the root mean square of the reference


def difference(got: np.ndarray, reference: np.ndarray) -> Difference:
    """Return the largest absolute difference, and that over the reference's root mean square; inf for other shapes."""
    if got.shape != reference.shape:
        return Difference(float("inf"), float("inf"))
    largest = float(np.abs(got.astype(np.float64) - reference).max())
    scale = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    return Difference(largest, largest / scale if scale else float("inf" if largest else 0))


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


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep the exporter's progress marks and deprecation notes from the terminal; its errors still raise.

    It records no stack traces either, which name this machine's files and take half of its time.
    """
    from torch.fx import config

    level, traced = logging.root.manager.disable, config.do_not_emit_stack_traces
    logging.disable(logging.WARNING)
    config.do_not_emit_stack_traces = True
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        config.do_not_emit_stack_traces = traced
