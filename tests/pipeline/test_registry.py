"""A model is accepted, later ones are held to it, and a fresh clone gets the very bytes: real git, real remote."""

from __future__ import annotations

import json
from pathlib import Path

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


def comparison(project: Project) -> dict[str, object]:
    text = (project.root / "artifacts/evaluation/comparison.json").read_text()
    found: dict[str, object] = json.loads(text)["comparison"]
    return found


def test_an_accepted_model_is_tagged_sent_and_got_again_elsewhere(kept: Project, tmp_path: Path) -> None:
    said = kept.must("make", "accept")
    assert "classifier@v1.0.0 is this commit's model" in said
    assert kept.must("git", "tag").split() == ["classifier@v1.0.0"]
    assert "gate: v1.0.0" in (kept.root / "params.yaml").read_text()
    kept.must("make", "push")
    model = (kept.root / "artifacts/model/model.onnx").read_bytes()

    clone = Project(tmp_path / "clone")
    kept.must("git", "clone", "--quiet", str(kept.root), str(clone.root))
    clone.must("git", "checkout", "--quiet", "classifier@v1.0.0")
    clone.must("dvc", "pull")
    assert (clone.root / "artifacts/model/model.onnx").read_bytes() == model
    assert "conformance images agree" in clone.must("headstart", "verify", "artifacts/model")

    kept.must("git", "commit", "--quiet", "-am", "hold later models to it")
    again = kept.run("make", "accept")
    assert again.returncode != 0
    assert "accept: evaluate would run, so artifacts/model does not match" in again.stdout


def test_what_is_not_committed_or_not_finished_is_not_accepted(kept: Project) -> None:
    kept.must("python", "-m", "tasks", "set", "train_head.folds=3")
    done = kept.run("python", "-m", "flows.accept")
    assert (done.returncode, "params.yaml is not committed" in done.stdout) == (1, True)
    kept.must("git", "commit", "--quiet", "-am", "other folds")
    done = kept.run("python", "-m", "flows.accept")
    assert (done.returncode, "train_head would run" in done.stdout) == (1, True)
    assert "Traceback" not in done.stdout
    assert kept.must("git", "tag") == ""


def test_a_model_that_is_clearly_worse_is_rejected_and_the_accepted_one_stays(
    kept: Project, api: Api, server: Server
) -> None:
    kept.must("make", "accept", "VERSION=v2.1.0")
    same = kept.must("dvc", "repro")
    assert "does not differ significantly from the accepted v2.1.0" in same
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


def test_a_version_that_is_not_there_is_told_before_anything_is_written(kept: Project) -> None:
    before = kept.artefacts()
    kept.must("python", "-m", "tasks", "set", "export.gate=v9.0.0")
    done = kept.run("dvc", "repro")
    assert done.returncode != 0
    assert "model.onnx of the accepted v9.0.0 cannot be fetched" in done.stdout
    assert "Traceback" not in done.stdout
    assert {name: digest for name, digest in kept.artefacts().items() if name != "dvc.lock"} == {
        name: digest for name, digest in before.items() if name != "dvc.lock"
    }
    wrong = kept.run("python", "-m", "tasks", "set", "export.gate=newest")
    assert (wrong.returncode, "export.gate" in wrong.stdout) == (1, True)
