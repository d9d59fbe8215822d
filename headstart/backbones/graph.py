"""A network as ONNX pieces: `resize` (image -> pixels) and `backbone` (pixels -> features).

`resize`    `image` uint8 [N, H, W, 3], any H and W -> `pixels` uint8 [N, S, S, 3]
`backbone`  `pixels` -> `features` float32 [N, D]; the crop to the input size and the normalisation are its first nodes
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.base.errors import CheckError
from headstart.onnx.pieces import OPSET, finished, int64

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from headstart.backbones.preprocessing import Preprocessing
    from headstart.onnx.backbone_folder import Fit


def resize_graph(size_px: int, interpolation: str, fit: Fit = "crop", bar_level: int = 0) -> onnx.ModelProto:
    """Return the graph that makes an image a square of `size_px`, antialiased.

    `fit` crop takes the centre square, squeeze the whole image, and pad the whole image with bars of the grey
    `bar_level` above and below, or left and right.

    The result is Pillow's on the same pixels to within two levels, except at the outermost pixels of a bilinear
    reduction: Pillow renormalises its kernel at the border, and onnxruntime does so for the cubic kernel only.
    """
    from onnx import TensorProto, helper

    resized = partial(_resized, interpolation)
    if fit == "pad":
        nodes, constants = _pad(size_px, resized, bar_level)
    else:
        nodes, constants = {"crop": _crop, "squeeze": _squeeze}[fit](size_px, resized)
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size_px, size_px, 3])],
        constants,
    )
    return finished(graph)


Part = tuple[list[Any], list[Any]]  # nodes, constants
Resized = Callable[[str, str], Any]  # takes the names of a node's input and output


def _crop(size_px: int, resized: Resized) -> Part:
    """Cut the centre square out first, which keeps the cost of a 1 x 20000 image small."""
    from onnx import helper

    nodes = [
        helper.make_node("Shape", ["image"], ["height_width"], start=1, end=3),
        helper.make_node("ReduceMin", ["height_width"], ["side"], keepdims=1),
        helper.make_node("Sub", ["height_width", "side"], ["margins"]),
        helper.make_node("Div", ["margins", "two"], ["starts"]),
        helper.make_node("Add", ["starts", "side"], ["ends"]),
        helper.make_node("Slice", ["image", "starts", "ends", "height_width_axes"], ["square"]),
        helper.make_node("Shape", ["image"], ["n_images"], start=0, end=1),
        helper.make_node("Concat", ["n_images", "size"], ["resized_shape"], axis=0),
        resized("square", "pixels"),
    ]
    constants = [int64("two", [2]), int64("height_width_axes", [1, 2]), int64("size", [size_px, size_px, 3])]
    return nodes, constants


def _squeeze(size_px: int, resized: Resized) -> Part:
    from onnx import helper

    nodes = [
        helper.make_node("Shape", ["image"], ["n_images"], start=0, end=1),
        helper.make_node("Concat", ["n_images", "size"], ["resized_shape"], axis=0),
        resized("image", "pixels"),
    ]
    return nodes, [int64("size", [size_px, size_px, 3])]


def _pad(size_px: int, resized: Resized, bar_level: int) -> Part:
    """Resize first, so that no square of 20000 x 20000 is ever made; the shorter side is rounded, and 1 at least."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Shape", ["image"], ["height_width"], start=1, end=3),
        helper.make_node("ReduceMax", ["height_width"], ["longer"], keepdims=1),
        helper.make_node("Mul", ["height_width", "size_twice"], ["scaled_twice"]),
        helper.make_node("Add", ["scaled_twice", "longer"], ["rounding_up"]),
        helper.make_node("Mul", ["longer", "two"], ["longer_twice"]),
        helper.make_node("Div", ["rounding_up", "longer_twice"], ["rounded"]),
        helper.make_node("Max", ["rounded", "one"], ["inner"]),
        helper.make_node("Shape", ["image"], ["n_images"], start=0, end=1),
        helper.make_node("Concat", ["n_images", "inner", "channels"], ["resized_shape"], axis=0),
        resized("image", "inner_pixels"),
        helper.make_node("Sub", ["size", "inner"], ["margins"]),
        helper.make_node("Div", ["margins", "two"], ["before"]),
        helper.make_node("Sub", ["margins", "before"], ["after"]),
        helper.make_node("Concat", ["zero", "before", "zero", "zero", "after", "zero"], ["bars"], axis=0),
        helper.make_node("Pad", ["inner_pixels", "bars", "level"], ["pixels"], mode="constant"),
    ]
    numbers = {"zero": [0], "one": [1], "two": [2], "channels": [3], "size": [size_px], "size_twice": [2 * size_px]}
    constants = [int64(name, values) for name, values in numbers.items()]
    return nodes, [*constants, numpy_helper.from_array(np.array(bar_level, np.uint8), "level")]


def _resized(interpolation: str, image: str, pixels: str) -> onnx.NodeProto:
    """Return the node that resizes the tensor `image` to the shape `resized_shape`."""
    from onnx import helper

    kernels: dict[str, dict[str, Any]] = {
        "bilinear": {"mode": "linear"},
        "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
    }
    return helper.make_node(
        "Resize",
        [image, "", "", "resized_shape"],
        [pixels],
        antialias=1,
        coordinate_transformation_mode="half_pixel",
        **kernels[interpolation],
    )


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
