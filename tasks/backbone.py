"""Turn a pretrained network into two ONNX graphs, resize and backbone, and keep its tensors for PyTorch beside them.

Reads params alone; writes artifacts/backbone/. The graphs must compute what the network computes: the stage compares
both on photographs and refuses to finish where they differ. Weights whose licence may not ship end the run here, before
anything is downloaded or trained; `export` looks again. What was exported for the same weights, parameters and versions
comes from the cache of this machine, and torch is not imported then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING

from headstart.backbones import kept
from headstart.base import licences
from headstart.base.files import replacing_folder, sha256_of
from headstart.base.progress import say, warn
from headstart.onnx import backbone_folder
from headstart.onnx.backbone_folder import (
    BACKBONE,
    RESIZE,
    TENSORS,
    BackboneRecord,
    HubRecord,
    LevelRecord,
    SourceRecord,
)

if TYPE_CHECKING:
    from headstart.backbones.export import Exported
    from headstart.backbones.foreign import Foreign
    from headstart.backbones.levels import Level
    from headstart.backbones.networks import Backbone
    from headstart.base.licences import Licence
    from headstart.layout import Layout
    from headstart.params import Params

    Judge = Callable[[Licence], None]

_OF_NETWORKS, _OF_GRAPHS = ("torch", "torchvision", "timm", "onnx"), ("onnx", "onnxruntime")  # recorded versions
_OF_TRANSFORMERS = ("torch", "torchvision", "transformers", "onnx")


def run(params: Params, layout: Layout) -> None:
    """Take from the cache, or load, export, compare, write."""
    wanted = params.backbone
    judge = partial(licences.check, backbone=wanted.name, allowed=params.export.licences)
    made_for = kept.made_for(wanted, params.transform.fit, layout.weights) if layout.keeps_backbones else None
    is_kept = made_for is not None and layout.cache.take(
        "backbone", made_for, layout.backbone, partial(kept.is_sound, judge=judge)
    )
    if not is_kept:
        _make(params, layout, judge)
        if made_for is not None:
            layout.cache.put("backbone", made_for, layout.backbone)
    record = backbone_folder.read(layout.backbone)
    if is_kept:
        say(f"{record.name} was exported from the same weights before: it is taken from the cache")
    for warning in record.warnings:
        warn(warning)


def _make(params: Params, layout: Layout, judge: Judge) -> None:
    """Load, export, compare, write."""
    made, network, source, hub = (_of_graph if params.backbone.is_onnx else _of_library)(params, layout, judge)
    levels, settings = made.levels, network.preprocessing
    used = _OF_GRAPHS if source else _OF_TRANSFORMERS if hub and hub.library == "transformers" else _OF_NETWORKS
    of_levels = f"of {len(levels)} levels" if len(levels) > 1 else "of its last layer alone: there are no other levels"
    given_as = "the graph as it was given" if source else "PyTorch"
    agree = f"agree on {made.n_photographs} photographs to {made.relative_difference:.1e}"
    say(f"backbone.onnx and {given_as} {agree}; {sum(level.width for level in levels)} features {of_levels}")
    with replacing_folder(layout.backbone) as beside:
        (beside / RESIZE).write_bytes(made.resize)
        (beside / BACKBONE).write_bytes(made.backbone)
        if made.tensors:
            made.tensors(beside / TENSORS)
        record = BackboneRecord(
            name=network.name,
            weights=network.weights,
            weights_sha256=network.weights_sha256,
            licence=network.licence.name,
            licence_source=network.licence.source,
            n_features=sum(level.width for level in levels),
            levels=_records(levels),
            preprocessing=settings.record,
            source=source,
            hub=hub,
            resize_onnx_sha256=sha256_of(beside / RESIZE),
            backbone_onnx_sha256=sha256_of(beside / BACKBONE),
            backbone_safetensors_sha256=sha256_of(beside / TENSORS) if made.tensors else None,
            versions={name: version(name) for name in used},
            warnings=made.warnings,
        )
        backbone_folder.write(beside, record)


def _of_library(params: Params, layout: Layout, judge: Judge) -> tuple[Exported, Backbone, None, HubRecord | None]:
    """Return a network of torchvision, timm or Transformers as pieces, and where it lies on the hub."""
    from headstart.backbones import networks
    from headstart.backbones.export import export

    network = networks.load(params.backbone, layout.weights, say, judge)
    settings = network.preprocessing.fitted(params.transform.fit, params.backbone.crop_fraction)
    network = replace(network, preprocessing=settings)
    say(f"weights: {network.weights}, licence {network.licence.name}")
    say(f"exporting {network.name}, {settings.input_px} px; up to a minute")
    return export(network), network, None, network.hub


def _of_graph(params: Params, layout: Layout, judge: Judge) -> tuple[Exported, Foreign, SourceRecord, None]:
    """Return an ONNX graph of the user's as pieces, and what was taken from it."""
    from headstart.backbones import foreign
    from headstart.backbones.export import export_foreign

    graph = foreign.load(params.backbone, layout.weights, say, judge)
    settings = graph.preprocessing.fitted(params.transform.fit, params.backbone.crop_fraction)
    graph = replace(graph, preprocessing=settings)
    image = graph.image
    say(f"weights: {graph.weights}, licence {graph.licence.name}")
    say(f"{graph.name} takes {settings.input_px} px as {image.layout} in {image.type.lower()}; {graph.found}")
    source = SourceRecord(
        input=image.name,
        layout=image.layout,
        type=image.type,
        channel_order=graph.channel_order,
        outputs=list(graph.outputs),
    )
    return export_foreign(graph), graph, source, None


def _records(levels: Sequence[Level]) -> list[LevelRecord]:
    starts = [0, *accumulate(level.width for level in levels)]
    return [
        LevelRecord(name=level.name, start=start, width=level.width, pooling=level.pooling)
        for level, start in zip(levels, starts, strict=False)
    ]
