"""Heads within the pipeline: levels that are not read leave the model, kinds, class weights, nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.support.projects import Project


def chosen(base: Project, folder: Path, *assignments: str) -> Project:
    """Return a copy that has trained, evaluated and exported a head with these parameters."""
    project = base.copy(folder / "project")
    project.must("python", "-m", "tasks", "set", *assignments)
    for stage in ("train_head", "finetune", "evaluate", "quantize", "export", "publish"):
        project.must("python", "-m", "tasks", stage)
    return project


def head(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.root / "artifacts/head/head.json").read_text())
    return found


def tuned(project: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.root / "artifacts/finetune/finetune.json").read_text())["tuned"]
    return found


def convolutions(project: Project) -> int:
    model = onnx.load(project.root / "artifacts/model/model.onnx")
    return sum(node.op_type == "Conv" for node in model.graph.node)


def levels(project: Project) -> list[str]:
    backbone = json.loads((project.root / "artifacts/backbone/backbone.json").read_text())
    return [level["name"] for level in backbone["levels"]]


@pytest.mark.slow
def test_layers_that_the_head_does_not_read_are_not_shipped(base: Project, tmp_path: Path) -> None:
    low = levels(base)[:2]
    whole = chosen(base, tmp_path / "whole", "train_head.levels=all", "train_head.kinds=[softmax]")
    small = chosen(base, tmp_path / "small", f"train_head.levels={json.dumps(low)}", "train_head.kinds=[softmax]")
    assert head(whole)["levels"] == levels(base)
    assert head(small)["levels"] == low
    assert convolutions(small) < convolutions(whole)
    size = [(project.root / "artifacts/model/model.onnx").stat().st_size for project in (small, whole)]
    assert size[0] < size[1]
    small.must("headstart", "verify", "artifacts/model")


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param("[mlp]", marks=pytest.mark.slow),
        pytest.param("[knn]", marks=pytest.mark.slow),
        pytest.param("[lda]", marks=pytest.mark.slow),
        "[ridge, prototype, svm, blend]",
    ],
)
def test_every_kind_ships(kinds: str, base: Project, tmp_path: Path) -> None:
    project = chosen(base, tmp_path, f"train_head.kinds={kinds}", "train_head.class_weight=balanced")
    assert str(head(project)["kind"]) in kinds
    project.must("headstart", "verify", "artifacts/model")


@pytest.mark.slow
def test_fine_tuning_starts_from_the_best_linear_head_where_another_kind_is_chosen(
    base: Project, tmp_path: Path
) -> None:
    project = base.copy(tmp_path / "project")
    short = (
        "finetune.enabled=true",
        "finetune.epochs=1",
        "finetune.views=1",
        "finetune.batch_size=6",
        "finetune.warmup_epochs=0.0",
    )
    project.must("python", "-m", "tasks", "set", "train_head.kinds=[knn]", *short)
    project.must("python", "-m", "tasks", "train_head")
    refused = project.run("python", "-m", "tasks", "finetune")
    assert refused.returncode == 1
    assert "fine-tuning starts from a linear head" in refused.stdout
    assert "Traceback" not in refused.stdout
    neighbours = head(project)["recipe"]
    project.must("python", "-m", "tasks", "set", "train_head.kinds=[knn, ridge]")
    project.must("python", "-m", "tasks", "train_head")
    project.must("python", "-m", "tasks", "finetune")
    record = head(project)
    linear = record["linear"]
    assert isinstance(linear, dict)
    assert [member["kind"] for member in linear["members"]] == ["ridge"]
    assert record["recipe"] == linear  # it is as good on these easy images, and simpler
    beside_ridge = tuned(project)
    (project.root / "artifacts/head/head.json").write_text(json.dumps({**record, "recipe": neighbours}))
    (project.root / "artifacts/head/sums.sha256").unlink()  # without it the folder is taken as it is
    said = project.must("python", "-m", "tasks", "finetune")
    assert "epoch 1/1" in said  # not the network that was judged beside the other head
    beside_neighbours = tuned(project)
    assert beside_neighbours["frozen_val_log_loss"] != beside_ridge["frozen_val_log_loss"]
    assert beside_neighbours["val_log_loss"] == beside_ridge["val_log_loss"]


@pytest.mark.slow
def test_a_tuned_network_ships_with_the_same_adjustment_by_the_prior(base: Project, tmp_path: Path) -> None:
    short = ("finetune.enabled=true", "finetune.epochs=1", "finetune.views=1", "finetune.batch_size=6")
    project = base.copy(tmp_path / "project")
    photos = sorted((project.root / "photos/bees").glob("*.jpg"))
    for path in photos[4:]:
        path.unlink()  # so that the prior is not even
    project.must("python", "-m", "tasks", "set", *short, "finetune.warmup_epochs=0.0", "train_head.kinds=[ridge]")
    project.must("dvc", "repro", "embed")
    biases = []
    for adjustment in (0.0, 1.0):
        project.must("python", "-m", "tasks", "set", f"train_head.logit_adjustment={adjustment}")
        project.must("python", "-m", "tasks", "train_head")
        project.must("python", "-m", "tasks", "finetune")
        graph = onnx.load(project.root / "artifacts/finetune/head.onnx").graph
        values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        biases.append(values["head_bias"])
    training = head(project)["training"]
    assert isinstance(training, dict)
    assert abs(training["shift"][0] - training["shift"][1]) > 0.3
    assert np.allclose(biases[1] - biases[0], training["shift"], atol=1e-4)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        (
            "train_head.kinds=[mlp, knn, blend]",
            "but no two heads to blend; name more of softmax, svm",
        ),
        ("train_head.kinds=[forest]", "a list of some of softmax, svm"),
        ("train_head.levels=blocks.3", "a list of names as in backbone.json is expected"),
        ("train_head.class_weight={ants: 0.0}", "with positive weights is expected"),
        ("train_head.levels=[nowhere]", "nowhere, which the backbone does not have"),
        ("train_head.class_weight={wasps: 2.0}", "wasps, which the data do not have"),
    ],
)
def test_nonsense_is_told(assignment: str, said: str, base: Project, tmp_path: Path) -> None:
    project = base.copy(tmp_path / "project")
    done = project.run("python", "-m", "tasks", "set", assignment)
    if done.returncode == 0:
        done = project.run("python", "-m", "tasks", "train_head")
    assert done.returncode == 1
    assert said in done.stdout
    assert "Traceback" not in done.stdout
