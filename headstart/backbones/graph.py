"""A network as the ONNX piece `backbone`.

`pixels` uint8 [N, S, S, 3] -> `features` float32 [N, D]; the crop to the input size and the normalisation are its first
nodes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from headstart.base.errors import CheckError
from headstart.onnx.pieces import OPSET, finished

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from headstart.backbones.preprocessing import Preprocessing


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
