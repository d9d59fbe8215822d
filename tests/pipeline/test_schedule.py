"""Runs that Prefect starts by itself: served by one command, and picked up by a worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from datetime import datetime
from typing import Any

import pytest

from tests.support.orchestration import QUIET, Api, background, environment, free_port, wait_for
from tests.support.projects import Project


def runs_of(api: Api, deployment: str, *kinds: str) -> list[dict[str, Any]]:
    found = api.asked(
        "/flow_runs/filter",
        deployments={"name": {"any_": [deployment]}},
        flow_runs={"state": {"type": {"any_": list(kinds)}}},
        sort="EXPECTED_START_TIME_ASC",
    )
    return list(found)


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=1).status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_one_command_serves_the_page_and_runs_the_pipeline_again_and_again(project: Project) -> None:
    before = project.artefacts()
    port = free_port()
    api = Api(f"http://127.0.0.1:{port}/api")
    log = project.root.parent / "serve"
    command = [sys.executable, "-m", "flows.serve", "--interval", "6", "--new-data", "3600", "--port", str(port)]
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]  # as a script that ends in & starts it
    with background(command, log, cwd=project.root, env=environment(project)) as process:
        wait_for(lambda: answers(f"{api.url}/health"), 60)
        done = wait_for(lambda: (found := runs_of(api, "scheduled", "COMPLETED")) and len(found) > 1 and found, 90)
        began = [datetime.fromisoformat(run["expected_start_time"]) for run in done]
        assert (began[1] - began[0]).total_seconds() == 6
        for run in done:
            assert run["auto_scheduled"]
            assert {task["state"]["name"] for task in api.tasks(run["id"])} == {"Cached"}
        assert runs_of(api, "new-data", "SCHEDULED")
        assert "Prefect" in urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
        settings = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings", timeout=5))
        assert settings["api_url"] == api.url  # else the page asks a server on another port
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
    assert "All deployments have been paused" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not answers(f"{api.url}/health")  # its server has ended too
    assert project.artefacts() == before


def test_a_schedule_that_is_none_is_refused(project: Project) -> None:
    for arguments in (("--cron", "0 3 * *"), ("--timezone", "Europe/Berlim")):
        done = project.run("python", "-m", "flows.serve", *arguments, **QUIET)
        assert done.returncode == 1
        assert "is not a schedule (Invalid" in done.stdout
        assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_worker_picks_up_a_scheduled_run(project: Project, api: Api) -> None:
    shell = environment(project, PREFECT_API_URL=api.url)

    def prefect(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments], cwd=project.root, env=shell, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    prefect("flow-run", "ls")  # with a FastAPI that Prefect does not know, the server refuses this one
    prefect("work-pool", "create", "local", "--type", "process")
    prefect("--no-prompt", "deploy", "--all")
    deployments = {each["name"]: each for each in api.asked("/deployments/filter")}
    assert {"nightly", "new-data", "manual"} <= set(deployments)
    (schedule,) = deployments["nightly"]["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *"
    prefect(
        "deployment", "run", "headstart/manual", "--start-in", "2 seconds", "--param", 'request={"note": "in a while"}'
    )
    with background(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", "local"],
        project.root.parent / "worker",
        cwd=project.root.parent,  # a worker may be started anywhere: a run goes to where `deploy` was called
        env=shell,
    ):
        (run,) = wait_for(lambda: runs_of(api, "manual", "COMPLETED", "FAILED", "CRASHED"), 90)
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    assert run["name"].endswith(" in a while")
    assert {task["state"]["name"] for task in api.tasks(run["id"])} == {"Cached"}
    # The server's own scheduler made these. With a SQLAlchemy that Prefect does not know, there are none.
    assert wait_for(lambda: runs_of(api, "nightly", "SCHEDULED"), 90)
