"""Prefect's server ends with the run or schedule that started it, however that ends; a repro by hand goes on."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import psutil
import pytest

from tests.support.orchestration import (
    SLOW_STAGE,
    Api,
    background,
    environment,
    flow,
    free_port,
    stages_running,
    wait_for,
)
from tests.support.projects import Project

ENDS_S = 12.0  # a server takes some seconds to end; the run itself is gone before


def below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def assert_gone(processes: list[psutil.Process], seconds: float = ENDS_S) -> None:
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    assert not alive, [process.cmdline() for process in alive]


@pytest.fixture
def under_way(project: Project, tmp_path: Path) -> Iterator[tuple[Popen[bytes], list[psutil.Process]]]:
    """A flow with its temporary server in a stage of some seconds, and all processes below it."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "flows.pipeline", "backbone", *SLOW_STAGE]
    with background(command, log, cwd=project.root, env=environment(project)) as process:
        wait_for(lambda: "exporting torchvision/resnet18" in log.read_text(), 120)
        there = below(process.pid)
        assert any("uvicorn" in " ".join(each.cmdline()) for each in there)
        yield process, there


def test_sigterm_ends_a_flow_and_its_temporary_server_within_seconds(
    project: Project, under_way: tuple[Popen[bytes], list[psutil.Process]]
) -> None:
    process, there = under_way
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(ENDS_S) in (143, -signal.SIGTERM)
    assert time.monotonic() - began < ENDS_S
    assert_gone(there)
    assert "name: test_efficientnet" in (project.root / "params.yaml").read_text()  # its overrides are taken out


@pytest.mark.slow
def test_a_killed_flow_leaves_no_server_behind(under_way: tuple[Popen[bytes], list[psutil.Process]]) -> None:
    process, there = under_way
    process.kill()
    assert_gone(there)


@pytest.mark.slow
def test_a_killed_schedule_leaves_no_server_behind(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-m", "flows.serve", "--cron", "0 3 1 1 *", "--port", str(free_port())]
    with background(command, log, cwd=project.root, env=environment(project)) as process:
        wait_for(lambda: "is being served" in log.read_text() or "Your deployments are" in log.read_text(), 90)
        there = below(process.pid)
        assert any("prefect" in each.cmdline() for each in there)
        process.kill()
        assert_gone(there)


@pytest.mark.slow
def test_a_flow_waits_for_a_repro_by_hand_which_succeeds(project: Project, api: Api, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = project.artefacts()
    command = [sys.executable, "-m", "dvc", "repro", "--force", "backbone"]
    with background(command, log, cwd=project.root, env=environment(project)) as repro:
        wait_for(lambda: stages_running(project), 60)
        done = flow(project, PREFECT_API_URL=api.url)
        assert repro.wait(10) == 0, log.read_text()
    assert f"process {repro.pid}" in done.stdout
    assert "is using this checkout; waiting for it to end" in done.stdout
    assert done.returncode == 0, done.stdout
    assert project.artefacts() == before


@pytest.mark.slow
def test_what_a_kill_has_left_of_dvcs_files_is_mended_by_run_and_flow(project: Project, api: Api) -> None:
    before = project.artefacts()
    rwlock, lock = project.root / ".dvc" / "tmp" / "rwlock", project.root / "dvc.lock"
    rwlock.write_text("")
    lock.write_bytes(lock.read_bytes()[:-40])
    assert project.run("dvc", "repro").returncode != 0
    told = project.must("python", "-m", "headstart", "run")
    assert "a killed run had left .dvc/tmp/rwlock unreadable" in told
    assert "a killed run had left dvc.lock unreadable" in told
    assert project.artefacts() == before
    rwlock.write_text("{")
    done = flow(project, PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    assert "a killed run had left .dvc/tmp/rwlock unreadable" in done.stdout
    assert project.artefacts() == before
