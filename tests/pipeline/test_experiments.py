"""DVC's own habits: experiments in place, in a temporary folder and in a queue, branches, clones, tables, plots."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import time

import pytest

from tests.support.images import ROOT
from tests.support.projects import Project

WHO = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "COLUMNS": "100",
}
RAN = re.compile(r"^Running stage '(\w+)':$", re.MULTILINE)


def commit(project: Project, message: str) -> None:
    project.must("git", "add", "--all")
    project.must("git", "commit", "--quiet", "--allow-empty", "-m", message, **WHO)


def command_of_the_docs(beginning: str) -> list[str]:
    """Return the words of the one command in docs/evaluation.md that begins so."""
    (line,) = re.findall(
        rf"^    ({re.escape(beginning)}.*?)(?: +#.*)?$", (ROOT / "docs/evaluation.md").read_text(), re.MULTILINE
    )
    return shlex.split(line)


@pytest.mark.slow
def test_the_table_and_the_plots_of_the_docs_have_something_to_show(project: Project) -> None:
    commit(project, "run")
    project.must("python", "-m", "tasks", "set", "split.seed=1")
    project.must("dvc", "repro", "evaluate")
    table = project.must(*command_of_the_docs("dvc exp show"), **WHO)
    assert max(map(len, table.splitlines())) <= 100
    assert {"test.log_loss", "split.seed"} <= set(table.split())
    assert "headstart" not in table
    found = json.loads(project.must("dvc", "plots", "diff", "HEAD", "--json"))["data"]
    assert found.pop("finetune") == []  # it is off, and DVC draws nothing
    assert set(found) == {"confusion", "reliability", "risk_coverage", "learning_curve", "heads"}
    for name, (plot,) in found.items():
        revisions = {row["rev"] for row in plot["content"]["data"]["values"]}
        assert revisions == {"workspace", "HEAD"}, name
    graph = project.must(*command_of_the_docs("dvc dag"))
    assert "mermaid" in graph
    assert '["publish"]' in graph


@pytest.mark.slow
def test_images_in_the_project_are_given_to_dvc_and_it_is_said(project: Project) -> None:
    said = project.must("headstart", "run", "--data", "photos", "validate")
    assert "run: DVC tracks photos now (photos.dvc, `git add`ed), with a copy of 0 MB in .dvc/cache" in said
    assert "A  photos.dvc" in project.must("git", "status", "--short")
    assert "photos/" not in project.must("git", "status", "--short", "--untracked-files=all")
    assert "DVC tracks" not in project.must("headstart", "run", "--data", "photos", "validate")
    shutil.copytree(project.root / "photos", project.root / "data/others")
    said = project.must("headstart", "run", "--data", "data/others", "validate")
    assert "git ignores data/others.dvc, so queued experiments and clones will not have the images" in said
    shutil.copytree(project.root / "photos", project.root / "committed")
    project.must("git", "add", "committed")
    said = project.must("headstart", "run", "--data", "committed", "validate")
    assert "DVC tracks" not in said
    assert not (project.root / "committed.dvc").exists()


@pytest.mark.slow
def test_experiments_run_in_place_in_a_temporary_folder_and_in_a_queue(project: Project) -> None:
    project.must("dvc", "add", "photos")
    project.must("dvc", "repro")
    commit(project, "run")
    project.must("dvc", "exp", "run", "--set-param", "split.seed=1", **WHO)
    project.must("dvc", "exp", "run", "--temp", "--set-param", "split.seed=2", **WHO)
    for seed in (3, 4):
        project.must("dvc", "exp", "run", "--queue", "--set-param", f"split.seed={seed}", **WHO)
    project.must("dvc", "queue", "start", "--jobs", "2", **WHO)
    until = time.monotonic() + 300
    while time.monotonic() < until and (
        "Queued" in (said := project.must("dvc", "queue", "status")) or "Running" in said
    ):
        time.sleep(2)
    assert said.count("Success") == 2, said
    table = project.must(*command_of_the_docs("dvc exp show"), **WHO)
    assert max(map(len, table.splitlines())) <= 100
    assert table.count("[") == 4
    project.must("dvc", "queue", "stop", "--kill")


@pytest.mark.slow
def test_a_branch_and_a_fresh_clone_have_what_was_pushed(project: Project) -> None:
    project.must("dvc", "add", "photos")
    project.must("dvc", "remote", "add", "--default", "store", str(project.root.parent / "remote"))
    project.must("dvc", "repro")
    commit(project, "run")
    project.must("dvc", "push", "--run-cache")
    here = project.artefacts()
    project.must("git", "checkout", "--quiet", "-b", "other")
    project.must("python", "-m", "tasks", "set", "split.seed=1")
    project.must("dvc", "repro")
    commit(project, "another split")
    there = project.artefacts()
    project.must("git", "checkout", "--quiet", "-")
    project.must("dvc", "checkout")
    assert project.artefacts() == here != there
    clone = Project(project.root.parent / "clone")
    project.must("git", "clone", "--quiet", str(project.root), str(clone.root))
    (clone.root / ".venv").symlink_to(project.root / ".venv")
    clone.must("dvc", "pull")
    assert {name: digest for name, digest in clone.artefacts().items() if "tuning" not in name} == here
    assert RAN.findall(clone.must("dvc", "repro")) in ([], ["sample"])
    clone.must("python", "-m", "tasks", "set", "split.seed=3")
    said = clone.must("dvc", "repro")
    assert "transform: 24 images computed, 0 reused" in said  # another machine has to decode them once
