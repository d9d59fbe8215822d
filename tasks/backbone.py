"""Turn a pretrained network into two ONNX graphs, resize and backbone, and keep its tensors for PyTorch beside them.

Reads params alone; writes artifacts/backbone/. The graphs must compute what PyTorch computes: the stage compares both
on photographs and refuses to finish where they differ.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from headstart.backbones import networks
from headstart.backbones.export import export
from headstart.base.files import replacing_folder, sha256_of
from headstart.base.progress import say
from headstart.onnx import backbone_folder
from headstart.onnx.backbone_folder import BACKBONE, RESIZE, TENSORS, BackboneRecord

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Load, export, compare, write."""
    backbone = networks.load(params.backbone, layout.weights, say)
    settings = backbone.preprocessing
    said = f"{settings.input_px} px, {backbone.n_features} features ({backbone.weights})"
    say(f"exporting {backbone.name}, {said}; this takes up to a minute")
    made = export(backbone)
    say(f"onnxruntime and PyTorch agree on {made.n_photographs} photographs to {made.relative_difference:.1e}")

    with replacing_folder(layout.backbone) as beside:
        (beside / RESIZE).write_bytes(made.resize)
        (beside / BACKBONE).write_bytes(made.backbone)
        networks.save(backbone.module, beside / TENSORS)
        record = BackboneRecord(
            name=backbone.name,
            weights=backbone.weights,
            weights_sha256=backbone.weights_sha256,
            licence=backbone.licence,
            n_features=backbone.n_features,
            preprocessing=settings.record,
            resize_onnx_sha256=sha256_of(beside / RESIZE),
            backbone_onnx_sha256=sha256_of(beside / BACKBONE),
            backbone_safetensors_sha256=sha256_of(beside / TENSORS),
            versions={name: version(name) for name in ("torch", "torchvision", "timm", "onnx")},
        )
        backbone_folder.write(beside, record)
