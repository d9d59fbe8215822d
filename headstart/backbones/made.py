"""A backbone as pieces in a folder: taken from the cache of this machine, or loaded, exported, compared and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING

from headstart.backbones import kept
from headstart.base.files import replacing_folder, sha256_of
from headstart.base.progress import say
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
    from pathlib import Path

    from headstart import params as parameters
    from headstart.backbones.export import Exported
    from headstart.backbones.foreign import Foreign
    from headstart.backbones.levels import Level
    from headstart.backbones.networks import Backbone
    from headstart.base.licences import Licence
    from headstart.onnx.backbone_folder import Fit
    from headstart.store.cache import Cache

    Judge = Callable[[Licence], None]

_OF_NETWORKS, _OF_GRAPHS = ("torch", "torchvision", "timm", "onnx"), ("onnx", "onnxruntime")  # recorded versions
_OF_TRANSFORMERS = ("torch", "torchvision", "transformers", "onnx")


def make(
    wanted: parameters.Backbone, fit: Fit, weights: Path, cache: Cache | None, folder: Path, judge: Judge
) -> tuple[BackboneRecord, bool]:
    """Write the pieces to `folder`; return their record, and whether they come from the cache.

    Downloads go to the folder `weights`. `judge` may raise to refuse the licence, before anything is downloaded.
    Without a cache, everything is made anew and nothing kept.
    """
    made_for = kept.made_for(wanted, fit, weights) if cache else None
    if cache and made_for and cache.take("backbone", made_for, folder, partial(kept.is_sound, judge=judge)):
        return backbone_folder.read(folder), True
    _export(wanted, fit, weights, folder, judge)
    if cache and made_for:
        cache.put("backbone", made_for, folder)
    return backbone_folder.read(folder), False


def _export(wanted: parameters.Backbone, fit: Fit, weights: Path, folder: Path, judge: Judge) -> None:
    """Load, export, compare, write."""
    made, network, source, hub = (_of_graph if wanted.is_onnx else _of_library)(wanted, fit, weights, judge)
    levels, settings = made.levels, network.preprocessing
    used = _OF_GRAPHS if source else _OF_TRANSFORMERS if hub and hub.library == "transformers" else _OF_NETWORKS
    of_levels = f"of {len(levels)} levels" if len(levels) > 1 else "of its last layer alone: there are no other levels"
    given_as = "the graph as it was given" if source else "PyTorch"
    agree = f"agree on {made.n_photographs} photographs to {made.relative_difference:.1e}"
    say(f"backbone.onnx and {given_as} {agree}; {sum(level.width for level in levels)} features {of_levels}")
    with replacing_folder(folder) as beside:
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


def _of_library(
    wanted: parameters.Backbone, fit: Fit, weights: Path, judge: Judge
) -> tuple[Exported, Backbone, None, HubRecord | None]:
    """Return a network of torchvision, timm or Transformers as pieces, and where it lies on the hub."""
    from headstart.backbones import networks
    from headstart.backbones.export import export

    network = networks.load(wanted, weights, say, judge)
    settings = network.preprocessing.fitted(fit, wanted.crop_fraction)
    network = replace(network, preprocessing=settings)
    whose = f"weights: {network.weights}, licence {network.licence.name}"
    say(f"exporting {network.name}, {settings.input_px} px, {whose}; up to a minute")
    return export(network), network, None, network.hub


def _of_graph(
    wanted: parameters.Backbone, fit: Fit, weights: Path, judge: Judge
) -> tuple[Exported, Foreign, SourceRecord, None]:
    """Return an ONNX graph of the user's as pieces, and what was taken from it."""
    from headstart.backbones import foreign
    from headstart.backbones.export import export_foreign

    graph = foreign.load(wanted, weights, say, judge)
    settings = graph.preprocessing.fitted(fit, wanted.crop_fraction)
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
