"""Export a network to ONNX pieces, and check them against PyTorch, or against the graph that it was given as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from headstart.backbones import checks, foreign_graph
from headstart.backbones.foreign import Foreign
from headstart.backbones.graph import backbone_graph, trace
from headstart.backbones.levels import Level
from headstart.backbones.networks import Backbone, save
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import bundled_with_scikit_learn
from headstart.onnx import pieces, runtime
from headstart.onnx.resize import resize_graph

if TYPE_CHECKING:
    import onnx

MAX_RELATIVE_DIFFERENCE = 1e-3  # of the root mean square of a level's features; 1e-6 to 1e-5 is usual
MAX_BYTES = 2_000_000_000  # protobuf's limit for one message is 2 GiB, and there are nodes and the head beside weights


class Exported(NamedTuple):
    """Both pieces, and how far their features are from those of the network itself."""

    resize: bytes
    backbone: bytes
    levels: tuple[Level, ...]
    n_photographs: int  # that they were compared on
    relative_difference: float  # of the features' root mean square
    tensors: Callable[[Path], None] | None  # writes them for PyTorch; None: it does not know the network
    warnings: list[str]  # what the checks on photographs found odd


def photographs() -> list[np.ndarray]:
    """Return four real photographs of different shapes, uint8 [H, W, 3], from scikit-learn's bundled two."""
    china, flower = (
        np.asarray(Image.open(bundled_with_scikit_learn(f"images/{name}.jpg"))) for name in ("china", "flower")
    )
    return [china, flower, china[:, 100:300], flower[60:360]]


def reference_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Return PyTorch's features [N, D] for uint8 [N, S, S, 3], with torchvision's own crop and normalisation."""
    import torch

    with torch.inference_mode():
        features = backbone.extractor()(checks.prepared(pixels, backbone.preprocessing))
    return np.asarray(features)


def exported(backbone: Backbone) -> onnx.ModelProto:
    """Return the backbone as an ONNX graph; ParamError where it is too large, or torch.onnx cannot export it."""
    n_bytes = sum(tensor.nbytes for tensor in backbone.module.state_dict().values())
    if n_bytes > MAX_BYTES:
        raise ParamError(
            f"backbone.name is '{backbone.name}', whose weights take {n_bytes / 1e6:.0f} MB. An ONNX file can hold"
            f" {MAX_BYTES / 1e6:.0f} MB. Choose a smaller backbone.name in params.yaml."
        )
    try:
        return backbone_graph(trace(backbone.extractor(), backbone.preprocessing))
    except Exception as error:  # the exporter's own, and whatever a network raises while it is traced
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise ParamError(
            f"backbone.name is '{backbone.name}', which torch.onnx cannot export ({said})."
            " Choose another backbone.name in params.yaml."
        ) from error


def export(backbone: Backbone) -> Exported:
    """Return the pieces of a network; ParamError where there are none, CheckError where they differ from PyTorch."""
    resize, pixels = resized(backbone.preprocessing)
    graph = pieces.to_bytes(exported(backbone))
    found = runtime.session(graph).run(None, {"pixels": pixels})[0]
    reference = reference_features(backbone, pixels)
    ends = np.cumsum([level.width for level in backbone.levels])[:-1]
    apart = _apart(np.split(found, ends, axis=1), np.split(reference, ends, axis=1))
    if not apart <= MAX_RELATIVE_DIFFERENCE:
        raise CheckError(
            f"onnxruntime's features of {backbone.name} differ from PyTorch's by {apart:.1e} of their size. At most"
            f" {MAX_RELATIVE_DIFFERENCE:.0e} was expected. Choose another backbone.name in params.yaml."
        )
    odd = []
    if backbone.weights != "random":
        odd = checks.of_network(backbone, pixels) + checks.of_features(resize, graph, backbone.levels, photographs())
    return Exported(resize, graph, backbone.levels, len(pixels), apart, partial(save, backbone.module), odd)


def export_foreign(foreign: Foreign) -> Exported:
    """Return the pieces of a graph of the user's; ParamError where there are none, CheckError where features differ."""
    resize, pixels = resized(foreign.preprocessing)
    values = foreign_graph.reference_values(foreign, pixels)
    levels = foreign_graph.levels_of(foreign, values)
    graph = pieces.to_bytes(foreign_graph.backbone_graph(foreign, levels))
    reference = [foreign_graph.pooled(value, level.pooling) for value, level in zip(values, levels, strict=True)]
    widths = [level.width for level in levels]
    found = foreign_graph.check_batch(foreign, graph, pixels, sum(widths))
    apart = _apart(np.split(found, np.cumsum(widths)[:-1], axis=1), reference)
    foreign_graph.check_parity(foreign, apart, MAX_RELATIVE_DIFFERENCE)
    odd = checks.of_features(resize, graph, levels, photographs())
    return Exported(resize, graph, levels, len(pixels), apart, None, odd)


def resized(settings: Preprocessing) -> tuple[bytes, np.ndarray]:
    """Return the piece `resize`, and what it makes of the photographs: uint8 [N, S, S, 3]."""
    resize = pieces.to_bytes(resize_graph(settings.resize_px, settings.interpolation, settings.fit, settings.bar_level))
    resizer = runtime.session(resize)
    return resize, np.concatenate([resizer.run(None, {"image": image[None]})[0] for image in photographs()])


def _apart(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Return the largest difference of any level, relative to its size."""
    return max(runtime.difference(*level).relative for level in zip(found, reference, strict=True))
