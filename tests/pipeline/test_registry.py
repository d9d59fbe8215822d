"""A model is accepted, later ones are held to it, and a fresh clone gets the very bytes: real git, real remote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.support.orchestration import Api, flow, notifying
from tests.support.projects import Project
from tests.support.server import Server


@pytest.fixture
def kept(project: Project, tmp_path: Path) -> Project:
    """A project with an identity, a DVC remote, its lock file committed."""
    project.must("git", "config", "user.name", "a")
    project.must("git", "config", "user.email", "a@example.org")
    project.must("dvc", "remote", "add", "--default", "remote", str(tmp_path / "remote"))
    project.must("dvc", "add", "photos")
    project.must("git", "add", "--all")
    project.must("git", "commit", "--quiet", "-m", "a model")
    return project


def mislabel(project: Project) -> None:
    """Move the images that are learned from to the folder of the other class; the held-out ones keep their labels."""
    splits = pl.read_parquet(project.root / "artifacts" / "splits.parquet").filter(pl.col("split") != "test")
    for path, label in splits.select("path", "label").iter_rows():
        other = {"ants": "bees", "bees": "ants"}[label]
        photo = project.root / "photos" / path
        photo.rename(photo.parents[1] / other / f"moved-{photo.name}")


def comparison(project: Project) -> dict[str, Any]:
    text = (project.root / "artifacts/evaluation/comparison.json").read_text()
    found: dict[str, Any] = json.loads(text)["comparison"]
    return found


def test_an_accepted_model_is_tagged_sent_and_got_again_elsewhere(kept: Project, tmp_path: Path) -> None:
    said = kept.must("make", "accept")
    assert "classifier@v1.0.0 is this commit's model" in said
    assert kept.must("git", "tag").split() == ["classifier@v1.0.0"]
    assert kept.must("git", "status", "--porcelain") == ""
    assert "up to date" in kept.must("dvc", "status")
    kept.must("make", "push")
    model = (kept.root / "artifacts/model/model.onnx").read_bytes()

    clone = Project(tmp_path / "clone")
    kept.must("git", "clone", "--quiet", str(kept.root), str(clone.root))
    clone.must("git", "checkout", "--quiet", "classifier@v1.0.0")
    clone.must("dvc", "pull")
    assert (clone.root / "artifacts/model/model.onnx").read_bytes() == model
    assert "conformance images agree" in clone.must("headstart", "verify", "artifacts/model")

    assert "evaluate" not in clone.must("dvc", "status")


def test_what_is_not_committed_or_not_finished_is_not_accepted(kept: Project) -> None:
    kept.must("python", "-m", "tasks", "set", "train_head.folds=3")
    done = kept.run("python", "-m", "flows.accept")
    assert (done.returncode, "params.yaml is not committed" in done.stdout) == (1, True)
    kept.must("git", "commit", "--quiet", "-am", "other folds")
    done = kept.run("python", "-m", "flows.accept")
    assert (done.returncode, "train_head would run" in done.stdout) == (1, True)
    assert "Traceback" not in done.stdout
    assert kept.must("git", "tag") == ""


@pytest.mark.slow
def test_a_model_that_is_clearly_worse_is_rejected_and_the_accepted_one_stays(
    kept: Project, api: Api, server: Server
) -> None:
    kept.must("make", "accept", "VERSION=v2.1.0")
    kept.must("python", "-m", "tasks", "set", "train_head.seed=1")
    same = kept.must("dvc", "repro")
    assert "does not differ significantly from the accepted v2.1.0" in same
    assert comparison(kept)["accepted"]["version"] == "v2.1.0"
    kept.must("python", "-m", "tasks", "set", "train_head.seed=0")
    back = kept.must("dvc", "repro")  # DVC knows this model, but not yet beside an accepted one
    assert "v2.1.0 is the accepted model to compare with" in back
    assert comparison(kept)["only_accepted_right"] == 0
    before = (kept.root / "artifacts/model/model.onnx").read_bytes()

    mislabel(kept)
    done = flow(kept, *notifying(kept, api, server), PREFECT_API_URL=api.url)
    assert done.returncode == 1
    assert "export: rejected. The model is significantly worse than the accepted v2.1.0" in done.stdout
    assert "Traceback" not in done.stdout
    run, tasks = api.last_run()
    assert (run["state"]["name"], run["state"]["type"]) == ("Rejected", "FAILED")
    assert "worse than the accepted v2.1.0" in run["state"]["message"]
    (posted,) = server.posted
    assert f"headstart Rejected: {run['name']}" in posted
    assert "worse than the accepted v2.1.0" in posted
    states = {task["name"]: task["state"]["name"] for task in tasks}
    assert (states["report"], states["export"]) == ("Completed", "Rejected")
    assert (kept.root / "artifacts/model/model.onnx").read_bytes() == before
    report = (kept.root / "artifacts/report.html").read_text()
    assert "significantly worse than the accepted v2.1.0" in report
    assert kept.must("git", "tag").split() == ["classifier@v2.1.0"]


@pytest.mark.slow
def test_a_model_with_other_classes_is_not_comparable_and_not_rejected(kept: Project) -> None:
    kept.must("make", "accept")
    (kept.root / "photos" / "bees").rename(kept.root / "photos" / "wasps")
    said = kept.must("dvc", "repro")
    why = (
        "The model is not comparable with the accepted v1.0.0, which has other classes:"
        " only this model knows wasps; only the accepted one knows bees."
    )
    assert why in said
    assert comparison(kept) == {"version": "v1.0.0", "why": why}
    assert why in (kept.root / "artifacts/report.html").read_text()
    assert "wasps" in (kept.root / "artifacts/model/model.json").read_text()


def test_a_version_that_is_not_there_is_told(kept: Project) -> None:
    model = (kept.root / "artifacts/model/model.onnx").read_bytes()
    kept.must("python", "-m", "tasks", "set", "export.gate=v9.0.0")
    done = kept.run("dvc", "repro")
    assert done.returncode != 0
    assert "export.gate is v9.0.0, and git has no tag 'classifier@v9.0.0'" in done.stdout
    assert "Traceback" not in done.stdout
    assert (kept.root / "artifacts/model/model.onnx").read_bytes() == model
    wrong = kept.run("python", "-m", "tasks", "set", "export.gate=oldest")
    assert (wrong.returncode, "export.gate" in wrong.stdout) == (1, True)
