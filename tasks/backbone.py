"""Turn a pretrained network into two ONNX graphs, resize and backbone, and keep its tensors for PyTorch beside them.

Reads params, and artifacts/ranked.json if backbone.name is `ranked`; writes artifacts/backbone/. The graphs must
compute what the network computes: the stage compares both on photographs and refuses to finish where they differ.
Weights whose licence may not ship end the run here, before anything is downloaded or trained; `export` looks again.
What was exported for the same weights, parameters and versions comes from the cache of this machine, and torch is not
imported then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from headstart.backbones import ranked
from headstart.backbones.made import make
from headstart.base import licences
from headstart.base.progress import say, warn

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params


def run(params: Params, layout: Layout) -> None:
    """Take from the cache, or load, export, compare, write."""
    wanted = ranked.resolved(params.backbone, layout)
    judge = partial(licences.check, backbone=wanted.name, allowed=params.export.licences)
    cache = layout.cache if layout.keeps_backbones else None
    record, is_kept = make(wanted, params.transform.fit, layout.weights, cache, layout.backbone, judge)
    if is_kept:
        say(f"{record.name} was exported from the same weights before: it is taken from the cache")
    for warning in record.warnings:
        warn(warning)
