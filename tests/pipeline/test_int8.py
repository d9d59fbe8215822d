"""8-bit integers within the pipeline: tried, judged, and shipped where that was found right."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.base.files import sha256_of
from headstart.handover import quantization
from headstart.images.decoding import decode
from headstart.onnx import pieces, runtime
from tests.support.images import ROOT
from tests.support.projects import Project

pytestmark = pytest.mark.slow  # runs of a whole pipeline; its parts have quicker tests


def record(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.root / "artifacts/int8/int8.json").read_text())
    return found


def trial_of(project: Project) -> dict[str, object]:
    found = record(project)["trial"]
    assert isinstance(found, dict)
    return found


def replaced(project: Project, path: Path, data: bytes) -> None:
    """Write another piece, and its digest into every record that names the earlier one."""
    earlier = sha256_of(path)
    path.write_bytes(data)
    for each in project.root.glob("artifacts/*/*.json"):
        each.write_text(each.read_text().replace(earlier, sha256_of(path)))
    for sums in project.root.glob("artifacts/*/sums.sha256"):
        sums.unlink()  # without it a folder is taken as it is


@pytest.fixture(scope="module")
def tried(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = base.copy(tmp_path_factory.mktemp("tried") / "project")
    project.must("python", "-m", "tasks", "set", "export.int8=true", "train_head.levels=all")
    for stage in ("train_head", "evaluate"):
        project.must("python", "-m", "tasks", stage)
    project.must("python", "-m", "tasks", "quantize")
    return project


def test_every_way_is_tried_and_few_images_do_not_let_one_ship(tried: Project) -> None:
    told = record(tried)
    assert len(trial_of(tried)["tries"]) == len(quantization.WAYS)  # type: ignore[arg-type]
    assert told["chosen"] is None
    assert "validation images are too few to show this even without a single loss; 329 are enough" in str(told["why"])
    assert trial_of(tried)["cpu"] == quantization.instruction_set()
    assert not (tried.root / "artifacts/int8/backbone.int8.onnx").exists()
    tried.must("python", "-m", "tasks", "report")
    page = (tried.root / "artifacts/report.html").read_text()
    assert page.count("all but the first and last layer") == 4
    tried.must("python", "-m", "tasks", "export")
    tried.must("python", "-m", "tasks", "publish")
    assert not (tried.root / "artifacts/model/model.int8.onnx").exists()
    assert json.loads((tried.root / "artifacts/model/model.json").read_text())["int8"] is None


def test_the_head_that_ships_has_learned_from_validation_and_does_not_judge(tried: Project, tmp_path: Path) -> None:
    project = tried.copy(tmp_path / "project")
    path = project.root / "artifacts/head/head.onnx"
    head = onnx.load(path)
    for tensor in head.graph.initializer:
        if tensor.name in ("head_weight", "head_bias"):
            wrong = numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name)  # always
            tensor.CopyFrom(wrong)
    replaced(project, path, pieces.to_bytes(head))
    project.must("python", "-m", "tasks", "quantize")
    assert trial_of(project)["float_accuracy"] == trial_of(tried)["float_accuracy"] == 1


def test_what_quantize_has_chosen_is_handed_over_beside_the_model(tried: Project) -> None:
    # Whether one is faster than float32 is the machine's; that it has been found so is all that export has to know.
    told, folder = record(tried), tried.root / "artifacts"
    side = json.loads((folder / "backbone/backbone.json").read_text())["preprocessing"]["resize_px"]
    pixels = np.random.default_rng(0).integers(0, 256, (16, side, side, 3), np.uint8)
    _, backbone = next(quantization.quantised((folder / "backbone/backbone.onnx").read_bytes(), pixels))
    (folder / "int8/backbone.int8.onnx").write_bytes(backbone)
    chosen = {"chosen": "a way", "backbone_sha256": sha256_of(folder / "int8/backbone.int8.onnx")}
    (folder / "int8/int8.json").write_text(json.dumps({**told, **chosen, "why": "An int8 model is shipped."}))
    (folder / "int8/sums.sha256").unlink(missing_ok=True)  # without it the folder is taken as it is
    tried.must("python", "-m", "tasks", "export")
    tried.must("python", "-m", "tasks", "publish")

    facts = json.loads((folder / "model/model.json").read_text())
    assert facts["int8"]["cpu"] == quantization.instruction_set()
    jsonschema.validate(facts, json.loads((ROOT / "headstart/handover/model.schema.json").read_text()))
    assert "An int8 model is shipped." in (folder / "model/MODEL_CARD.md").read_text()
    assert "files match SHA256SUMS" in tried.must("headstart", "verify", "artifacts/model")
    models = [runtime.session(folder / "model" / name) for name in ("model.onnx", "model.int8.onnx")]
    predictions = pl.read_parquet(folder / "evaluation/predictions.parquet")
    for path in predictions["path"]:
        rgb = decode((tried.root / "photos" / path).read_bytes()).rgb
        in_float, in_int8 = (model.run(["probabilities"], {"image": rgb[None]})[0] for model in models)
        assert np.abs(in_float - in_int8).max() < 0.2
    assert [each.name for each in models[1].get_outputs()] == ["probabilities", "label_index", "novelty"]
    assert "headstart predict" in (folder / "model/MODEL_CARD.md").read_text()
    tried.must("headstart", "predict", "artifacts/model/model.int8.onnx", "photos")


def test_an_int8_backbone_that_is_not_the_one_that_was_judged_is_refused(tried: Project) -> None:
    file = tried.root / "artifacts/int8/backbone.int8.onnx"
    data = file.read_bytes()
    for damage in (lambda: file.write_bytes(data[:-1] + b"x"), file.unlink):
        damage()
        done = tried.run("python", "-m", "tasks", "export")
        said = done.stdout
        assert done.returncode
        assert "backbone.int8.onnx" in said
        assert "Run `dvc repro" in said
        assert "Traceback" not in said
    file.write_bytes(data)


def test_a_backbone_that_cannot_be_quantised_is_told_of_and_stops_nothing(tried: Project) -> None:
    folder = tried.root / "artifacts"
    earlier = runtime.session(folder / "backbone/backbone.onnx")
    n_features, side = earlier.get_outputs()[0].shape[1], earlier.get_inputs()[0].shape[1]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["cast", "axes"], ["means"], keepdims=0),
        helper.make_node("Pad", ["means", "pads"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", side, side, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", n_features])],
        [
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(np.array([0, 0, 0, n_features - 3]), "pads"),
        ],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", pieces.OPSET)])
    replaced(tried, folder / "backbone/backbone.onnx", pieces.to_bytes(model))
    tried.must("python", "-m", "tasks", "quantize")
    assert record(tried)["chosen"] is None
    assert "onnxruntime cannot quantise this backbone (ValueError: no node is one of" in str(record(tried)["why"])
    assert not (folder / "int8/backbone.int8.onnx").exists()
    tried.must("python", "-m", "tasks", "report")
