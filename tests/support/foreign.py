"""ONNX graphs as backbones: how tests load them, run their pieces, and compute the same by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from headstart import params_file
from headstart.backbones import export, foreign
from headstart.backbones.export import export_foreign, photographs
from headstart.base.errors import ParamError
from headstart.layout import Layout
from headstart.onnx import pieces, runtime
from tasks import backbone as stage
from tests.support import graphs
from tests.support.backbones import settings
from tests.support.graphs import PREPARED, PX
from tests.support.images import ROOT


def loaded(graph: onnx.ModelProto, folder: Path, **changes: object) -> foreign.Foreign:
    given = {"name": "onnx", **graphs.saved(graph, folder / "net.onnx"), **PREPARED, **changes}
    return foreign.load(settings(**given), folder, lambda line: None)


def refusal(graph: onnx.ModelProto, folder: Path, **changes: object) -> str:
    with pytest.raises(ParamError) as error:
        export_foreign(loaded(graph, folder, **changes))
    return str(error.value)


def features_of(made: export.Exported) -> np.ndarray:
    resize = runtime.session(made.resize)
    pixels = np.concatenate([resize.run(None, {"image": image[None]})[0] for image in photographs()])
    return np.asarray(runtime.session(made.backbone).run(None, {"pixels": pixels})[0])


def by_hand(made: export.Exported, graph: onnx.ModelProto, tensor: str, order: str = "rgb") -> np.ndarray:
    """Return a tensor of the graph on the photographs, prepared by numpy as PREPARED says."""
    resize = runtime.session(made.resize)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    session = runtime.session(pieces.to_bytes(model))
    side = round(PX / 0.8)
    start = (side - PX) // 2
    found = []
    for image in photographs():
        pixels = resize.run(None, {"image": image[None]})[0][:, start : start + PX, start : start + PX]
        given = (pixels / 255 - np.array(PREPARED["mean"])) / np.array(PREPARED["std"])
        given = given[..., ::-1] if order == "bgr" else given
        given = given.transpose(0, 3, 1, 2) if session.get_inputs()[0].shape[1] == 3 else given
        found.append(session.run([tensor], {"images": given.astype(np.float32)})[0])
    return np.concatenate(found)


def run(layout: Layout, **changes: object) -> dict[str, Any]:
    values = params_file.load(ROOT / "params.yaml").model_copy(update={"backbone": settings(name="onnx", **changes)})
    stage.run(values, replace(layout, keeps_backbones=False))
    facts: dict[str, Any] = json.loads((layout.backbone / "backbone.json").read_text())
    return facts
