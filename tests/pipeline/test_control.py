"""Runs that are interrupted, cancelled, killed, or in each other's way: what ends, what is kept, what Prefect shows."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from subprocess import Popen
from typing import Any

import psutil
import pytest

from tests.support.orchestration import (
    SLOW_REQUEST,
    Api,
    background,
    environment,
    flow,
    run_in_its_slow_stage,
    stages_running,
    wait_for,
)
from tests.support.projects import Project

ENDS_S = 5.0
Served = tuple[str, Popen[bytes]]  # a deployment, and the process that waits to run it


def assert_gone(processes: list[psutil.Process]) -> None:
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=ENDS_S)
    assert not alive


def assert_nothing_is_in_the_way(project: Project, before: dict[str, str]) -> None:
    """What was there is as it was, the run's parameters are gone, and the next run finds nothing to do."""
    project.must("dvc", "checkout")  # DVC removes the outputs of a stage before it runs it
    assert project.artefacts() == before
    wait_for(lambda: "name: test_efficientnet" in (project.root / "params.yaml").read_text(), 10)
    assert "up to date" in project.must("dvc", "status")


def final(api: Api, run_id: str) -> dict[str, Any]:
    state = wait_for(lambda: (found := api.run(run_id)["state"])["type"] in FINAL and found, 60)
    assert isinstance(state, dict)
    return state


FINAL = ("COMPLETED", "CANCELLED", "CRASHED", "FAILED")


def test_ctrl_c_ends_the_stage_and_leaves_no_lock_behind(project: Project, api: Api) -> None:
    before = project.artefacts()
    with run_in_its_slow_stage(project, api) as (process, log):
        stages = stages_running(project)
        os.killpg(process.pid, signal.SIGINT)
        assert_gone(stages)
        process.wait(ENDS_S)
        assert process.returncode == 130
        assert "interrupted; earlier results are unchanged" in log.read_text()
    run, tasks = api.last_run()
    assert run["state"]["type"] == "CRASHED"
    assert {task["state"]["type"] for task in tasks} <= {"COMPLETED", "CRASHED"}
    assert_nothing_is_in_the_way(project, before)


@pytest.mark.slow
def test_a_terminated_run_ends_its_stage_and_is_crashed(project: Project, api: Api) -> None:
    before = project.artefacts()
    with run_in_its_slow_stage(project, api) as (process, _):
        stages = stages_running(project)
        process.terminate()
        assert_gone(stages)
        process.wait(20)
    assert api.last_run()[0]["state"]["type"] == "CRASHED"
    assert_nothing_is_in_the_way(project, before)


@pytest.mark.slow
def test_a_killed_run_ends_its_stage_and_the_next_one_is_clean_and_says_that_it_crashed(
    project: Project, api: Api
) -> None:
    before = project.artefacts()
    with run_in_its_slow_stage(project, api) as (process, _):
        stages = stages_running(project)
        process.kill()
        assert_gone(stages)
    killed, _ = api.last_run()
    assert killed["state"]["type"] == "RUNNING"  # nobody was left to tell
    assert "name: resnet18" in (project.root / "params.yaml").read_text()
    done = flow(project, PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    left = "backbone.name, backbone.weights, cache.backbones"
    assert f"params.yaml still had {left} of a run that was killed" in done.stdout
    assert f"the run '{killed['name']}' on this checkout was killed" in done.stdout
    assert project.artefacts() == before
    assert "up to date" in project.must("dvc", "status")
    killed = api.run(killed["id"])
    assert killed["state"]["type"] == "CRASHED"
    assert killed["state"]["message"] == "its process was killed; finished stages are kept"
    states = {task["name"]: task["state"]["type"] for task in api.tasks(killed["id"])}
    assert states["backbone"] == "CRASHED"


@pytest.mark.slow
def test_of_two_runs_the_second_waits_and_a_shell_is_told_who_is_at_it(project: Project, api: Api) -> None:
    with run_in_its_slow_stage(project, api, "backbone") as (process, log):
        first, _ = api.last_run()
        second_log = project.root.parent / "second"
        command = [sys.executable, "-m", "flows.pipeline", "backbone"]
        options = {"cwd": project.root, "env": environment(project, PREFECT_API_URL=api.url)}
        with background(command, second_log, **options) as second:
            shell = project.run("dvc", "repro")
            assert shell.returncode != 0
            assert "is busy, it is being blocked by" in shell.stdout
            assert str(process.pid) in shell.stdout
            wait_for(lambda: "another run is using this checkout; waiting for it to end" in second_log.read_text(), 30)
            assert api.run(first["id"])["state"]["type"] == "RUNNING"
            assert process.wait(120) == 0, log.read_text()
            assert second.wait(60) == 0, second_log.read_text()
    assert api.run(first["id"])["state"]["type"] == "COMPLETED"
    run, tasks = api.last_run()
    assert run["id"] != first["id"]
    assert {task["state"]["type"] for task in tasks} == {"COMPLETED"}
    assert "up to date" in project.must("dvc", "status", "backbone")  # by its own parameters, not by those of the first


@pytest.fixture
def served(project: Project, api: Api) -> Iterator[Served]:
    """Yield the id of a deployment of the project, far in the future, and the process that waits to run it."""
    log = project.root.parent / "serve"
    command = [sys.executable, "-m", "flows.serve", "--cron", "0 3 1 1 *", "--timezone", "Europe/Berlin"]
    with background(command, log, cwd=project.root, env=environment(project, PREFECT_API_URL=api.url)) as process:
        wait_for(lambda: "is being served" in log.read_text() or "Your deployments are" in log.read_text(), 60)
        (deployment,) = api.asked("/deployments/filter", deployments={"name": {"any_": ["scheduled"]}})
        yield deployment["id"], process


def begin(api: Api, deployment: str, project: Project) -> str:
    """Start a run as the page's form does, and return its id when its slow stage is under way."""
    parameters = {"request": SLOW_REQUEST}
    run = api.asked(f"/deployments/{deployment}/create_flow_run", parameters=parameters, state={"type": "SCHEDULED"})
    wait_for(lambda: any("backbone" in stage.cmdline() for stage in stages_running(project)), 90)
    time.sleep(1)
    return str(run["id"])


@pytest.mark.slow
def test_a_run_cancelled_on_the_page_ends_its_stage_and_is_cancelled(
    project: Project, api: Api, served: Served
) -> None:
    before = project.artefacts()
    run_id = begin(api, served[0], project)
    stages = stages_running(project)
    api.cancel(run_id)
    assert_gone(stages)
    assert final(api, run_id)["type"] == "CANCELLED"
    assert_nothing_is_in_the_way(project, before)


@pytest.mark.parametrize("killed", [pytest.param("run", marks=pytest.mark.slow), "worker"])
def test_a_killed_run_or_worker_ends_the_stage_and_the_run_is_crashed(
    project: Project, api: Api, served: Served, killed: str
) -> None:
    before = project.artefacts()
    run_id = begin(api, served[0], project)
    stages = stages_running(project)
    run = next(process for process in stages[0].parents() if "prefect" in " ".join(process.cmdline()))
    (run if killed == "run" else served[1]).kill()
    assert_gone(stages)
    assert final(api, run_id)["type"] == "CRASHED"
    assert_nothing_is_in_the_way(project, before)
