"""Backbones compared in a real project: by `make rank`, which changes nothing, and by the stage `rank`."""

from __future__ import annotations

import re

import pytest

from tests.support.projects import Project

CANDIDATES = "rank.backbones=[{name: test_efficientnet, weights: random, input_px: 64}]"


def state(project: Project) -> tuple[dict[str, str], str, bytes]:
    status = project.must("git", "status", "--porcelain")
    return project.artefacts(), status, (project.root / "params.yaml").read_bytes()


def test_make_rank_shows_the_table_and_changes_nothing(project: Project) -> None:
    project.must("python", "-m", "tasks", "set", CANDIDATES)
    before = state(project)
    said = project.must("make", "rank", "DATA=photos")
    assert "> test_efficientnet (random, 64 px)" in said
    assert state(project) == before


@pytest.mark.slow
def test_the_winner_of_one_is_the_backbone_that_was_there_and_only_what_tells_of_it_runs_again(
    project: Project,
) -> None:
    before = project.artefacts()
    left_open = ("backbone.name=ranked", "backbone.weights=bundled", "backbone.input_px=null")
    project.must("python", "-m", "tasks", "set", CANDIDATES, *left_open)
    said = project.must("dvc", "repro")
    assert set(re.findall(r"Running stage '(\w+)'", said)) == {"rank", "backbone", "finetune", "report"}
    assert "test_efficientnet was exported from the same weights before" in said
    after = project.artefacts()
    assert after["artifacts/backbone/backbone.onnx"] == before["artifacts/backbone/backbone.onnx"]
    assert after["artifacts/export/model.onnx"] == before["artifacts/export/model.onnx"]
    assert 'id="backbones"' in (project.root / "artifacts" / "report.html").read_text()
