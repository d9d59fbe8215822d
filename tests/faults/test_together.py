"""Runs that are at work at the same time: on one checkout, and on two that share the cache of rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.orchestration import background, environment, stages_running, wait_for
from tests.support.projects import Project


@pytest.mark.slow
def test_of_two_repros_on_one_checkout_the_second_is_told_and_the_first_ends_well(
    project: Project, tmp_path: Path
) -> None:
    before, log = project.artefacts(), tmp_path / "log"
    command = [sys.executable, "-m", "dvc", "repro", "--force", "--single-item", "train_head"]
    with background(command, log, cwd=project.root, env=environment(project)) as first:
        wait_for(lambda: stages_running(project), 60)
        second = project.run("dvc", "repro", "--force", "--single-item", "train_head")
        assert first.wait(120) == 0, log.read_text()
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stdout
    project.must("dvc", "repro")
    assert project.artefacts() == before


@pytest.mark.slow
def test_two_checkouts_that_fill_one_cache_at_the_same_time_end_in_the_same_bytes(
    project: Project, tmp_path: Path
) -> None:
    other, cache = project.copy(tmp_path / "other"), str(tmp_path / "cache")
    before = project.artefacts()
    command = "dvc repro --force --single-item transform && dvc repro --force --single-item embed"
    started = [
        subprocess.Popen(
            ["sh", "-c", command],
            cwd=each.root,
            env=environment(each, HEADSTART_CACHE=cache),
            stdout=subprocess.DEVNULL,
        )
        for each in (project, other)
    ]
    assert [process.wait(300) for process in started] == [0, 0]
    assert project.artefacts() == before
    assert other.artefacts() == before
    rows = [path for path in Path(cache).rglob("*") if path.suffix == ".partial"]
    assert rows == []
