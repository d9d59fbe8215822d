"""Export a network to ONNX pieces, and check them against PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from headstart.backbones.graph import backbone_graph, trace
from headstart.backbones.networks import Backbone
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import bundled_with_scikit_learn
from headstart.onnx import pieces, runtime
from headstart.onnx.resize import resize_graph

if TYPE_CHECKING:
    import onnx

MAX_RELATIVE_DIFFERENCE = 1e-3  # of the root mean square of a level's features; 1e-6 to 1e-5 is usual
MAX_BYTES = 2_000_000_000  # protobuf's limit for one message is 2 GiB, and there are nodes and the head beside weights


class Exported(NamedTuple):
    """Both pieces, and how far their features are from PyTorch's."""

    resize: bytes
    backbone: bytes
    n_photographs: int  # that they were compared on
    relative_difference: float  # of the features' root mean square


def photographs() -> list[np.ndarray]:
    """Return four real photographs of different shapes, uint8 [H, W, 3], from scikit-learn's bundled two."""
    china, flower = (
        np.asarray(Image.open(bundled_with_scikit_learn(f"images/{name}.jpg"))) for name in ("china", "flower")
    )
    return [china, flower, china[:, 100:300], flower[60:360]]


def reference_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Return PyTorch's features [N, D] for uint8 [N, S, S, 3], with torchvision's own crop and normalisation."""
    import torch
    from torchvision.transforms.v2 import functional

    settings = backbone.preprocessing
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    images = functional.center_crop(images, [settings.input_px, settings.input_px]).float() / 255
    with torch.inference_mode():
        features = backbone.extractor()(functional.normalize(images, list(settings.mean), list(settings.std)))
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
    settings = backbone.preprocessing
    resize = pieces.to_bytes(resize_graph(settings.resize_px, settings.interpolation, settings.fit, settings.bar_level))
    graph = pieces.to_bytes(exported(backbone))
    resizer = runtime.session(resize)
    pixels = np.concatenate([resizer.run(None, {"image": image[None]})[0] for image in photographs()])
    found = runtime.session(graph).run(None, {"pixels": pixels})[0]
    reference = reference_features(backbone, pixels)
    ends = np.cumsum([level.width for level in backbone.levels])[:-1]
    each = zip(np.split(found, ends, axis=1), np.split(reference, ends, axis=1), strict=True)
    apart = max(runtime.difference(*level).relative for level in each)
    if not apart <= MAX_RELATIVE_DIFFERENCE:
        raise CheckError(
            f"onnxruntime's features of {backbone.name} differ from PyTorch's by {apart:.1e} of their size. At most"
            f" {MAX_RELATIVE_DIFFERENCE:.0e} was expected. Choose another backbone.name in params.yaml."
        )
    return Exported(resize, graph, len(pixels), apart)
