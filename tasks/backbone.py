"""Turn a pretrained network into two ONNX graphs, resize and backbone, and keep its tensors for PyTorch beside them.

Reads params alone; writes artifacts/backbone/. The graphs must compute what PyTorch computes: the stage compares both
on photographs and refuses to finish where they differ. Weights whose licence may not ship end the run here, before
anything is downloaded or trained; `export` looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING

from headstart.backbones import networks
from headstart.backbones.export import export
from headstart.base import licences
from headstart.base.files import replacing_folder, sha256_of
from headstart.base.progress import say
from headstart.onnx import backbone_folder
from headstart.onnx.backbone_folder import BACKBONE, RESIZE, TENSORS, BackboneRecord, LevelRecord

if TYPE_CHECKING:
    from headstart.backbones.levels import Level
    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Load, export, compare, write."""
    wanted = params.backbone
    judge = partial(licences.check, backbone=wanted.name, allowed=params.export.licences)
    backbone = networks.load(wanted, layout.weights, say, judge)
    settings = backbone.preprocessing.fitted(params.transform.fit, wanted.crop_fraction)
    backbone = replace(backbone, preprocessing=settings)
    n_levels = len(backbone.levels)
    of_levels = f"of {n_levels} levels" if n_levels > 1 else "of its last layer alone: its groups give no levels"
    say(f"weights: {backbone.weights}, licence {backbone.licence.name}")
    shape = f"{settings.input_px} px, {backbone.n_features} features {of_levels}"
    say(f"exporting {backbone.name}, {shape}; up to a minute")
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
            licence=backbone.licence.name,
            licence_source=backbone.licence.source,
            n_features=backbone.n_features,
            levels=_records(backbone.levels),
            preprocessing=settings.record,
            resize_onnx_sha256=sha256_of(beside / RESIZE),
            backbone_onnx_sha256=sha256_of(beside / BACKBONE),
            backbone_safetensors_sha256=sha256_of(beside / TENSORS),
            versions={name: version(name) for name in ("torch", "torchvision", "timm", "onnx")},
        )
        backbone_folder.write(beside, record)


def _records(levels: Sequence[Level]) -> list[LevelRecord]:
    starts = [0, *accumulate(level.width for level in levels)]
    return [
        LevelRecord(name=level.name, start=start, width=level.width, pooling=level.pooling)
        for level, start in zip(levels, starts, strict=False)
    ]
