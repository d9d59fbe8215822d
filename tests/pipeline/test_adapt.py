"""The stage `adapt` in a real project: photographs under another light, then shipped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.domains import manifest, other_light
from tests.support.projects import CLASSES, Project

FIGURES = ("metrics.json", "predictions.parquet", "candidates.json", "label_sets.json", "per_class.json")


def record(project: Project, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.root / "artifacts" / name).read_text())
    return found


@pytest.fixture
def elsewhere(project: Project) -> Project:
    """The project with images under another light, most of which have a label: the right one."""
    other_light(project.root / "elsewhere", 24)
    manifest(project.root, {name: name for name in CLASSES})
    project.must("python", "-m", "tasks", "set", "data.unlabelled=elsewhere.csv")
    return project


@pytest.mark.slow
def test_the_head_is_adapted_without_labels_and_ships_if_asked(elsewhere: Project) -> None:
    before = elsewhere.artefacts()
    said = elsewhere.must("dvc", "repro")
    assert "adapt: They look otherwise" in said
    adapted, told = record(elsewhere, "adapt/adapted.json"), record(elsewhere, "evaluation/elsewhere.json")
    assert adapted["chosen"] == told["method"] != "none"
    assert told["ships"] is False
    labelled = told["labelled"]
    assert labelled["n_images"] == 48  # type: ignore[index]
    assert labelled["gain"]["low"] > 0  # type: ignore[index]
    after = elsewhere.artefacts()
    same = [f"artifacts/evaluation/{name}" for name in FIGURES]
    same += [name for name in before if name.startswith(("artifacts/head/", "artifacts/model/", "artifacts/export/"))]
    assert {name for name in same if before[name] != after[name]} == set()
    page = (elsewhere.root / "artifacts" / "report.html").read_text()
    assert "Is it as good elsewhere?" in page and "The head as it is ships" in page

    manifest(elsewhere.root, {"ants": "bees", "bees": "ants"})  # the bait: labels that are all wrong
    elsewhere.must("dvc", "repro", "evaluate")
    assert after["artifacts/adapt/head.onnx"] == elsewhere.artefacts()["artifacts/adapt/head.onnx"]
    assert record(elsewhere, "adapt/adapted.json") == adapted
    wrong = record(elsewhere, "evaluation/elsewhere.json")["labelled"]
    assert wrong["gain"]["high"] < 0  # type: ignore[index]

    elsewhere.must("python", "-m", "tasks", "set", "adapt.ship=true")
    elsewhere.must("dvc", "repro")
    assert record(elsewhere, "model/model.json")["candidate"] == "adapted"
    shipped = record(elsewhere, "evaluation/metrics.json")["test"]
    held_out = record(elsewhere, "evaluation/elsewhere.json")["held_out"]
    assert shipped["accuracy"] == held_out["adapted"]["accuracy"]  # type: ignore[index]
    assert "adapted" in (elsewhere.root / "artifacts" / "model" / "MODEL_CARD.md").read_text()
    elsewhere.must("headstart", "verify", "artifacts/model")
    files = sorted((elsewhere.root / "elsewhere").rglob("*.jpg"))
    said = elsewhere.must("headstart", "predict", "artifacts/model", *map(str, files), "--json")
    answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(answers) == len(files)
    assert np.mean([answer["label"] == Path(answer["path"]).parent.name for answer in answers]) > 0.8
