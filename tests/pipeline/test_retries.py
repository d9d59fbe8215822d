"""A stage that fails on something that heals is tried again, and the lock file then tells the truth."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.cluster import Cluster
from tests.support.images import ROOT
from tests.support.orchestration import Api, background, environment, flow, free_port, notifying, wait_for
from tests.support.processes import started
from tests.support.projects import Project
from tests.support.server import Server

STEP = r"""
import json, os, sys
from pathlib import Path

def tell(**event):
    if "HEADSTART_EVENTS" in os.environ:
        with open(os.environ["HEADSTART_EVENTS"], "a") as file:
            file.write(json.dumps(event) + "\n")

tell(kind="start")
fails = Path("fails")
if fails.exists():
    may_heal = fails.read_text() == "may heal"
    fails.unlink()
    tell(kind="error", message="not now", may_heal=may_heal, rejected=False)
    sys.exit(1)
Path("out").write_text(Path("params.yaml").read_text())
"""
DAG = """
stages:
  step:
    cmd: python step.py
    params: [number]
    outs: [out]
"""
FLOW = """
import os, sys
os.environ.update(DO_NOT_TRACK="1")
from dvc.repo import Repo
from dvc.repo.reproduce import _reproduce_stage
from prefect import flow
from flows import stages

@flow(name="small")
def small():
    failures = []
    with Repo(".", _wait_for_lock=True) as repo:
        repo.reproduce(repro_fn=stages.as_task_runs(_reproduce_stage, failures, [], print, sys.exit))

small()
"""


@pytest.fixture
def small(tmp_path: Path) -> Project:
    """A repository with a single stage, whose output DVC's run cache knows for number 1."""
    project = Project(tmp_path / "small")
    project.root.mkdir()
    for name, text in {"dvc.yaml": DAG, "step.py": STEP, "run.py": FLOW, "params.yaml": "number: 1\n"}.items():
        (project.root / name).write_text(text)
    project.must("git", "init", "--quiet")
    project.must("dvc", "init", "--quiet")
    project.must("dvc", "repro")
    (project.root / "params.yaml").write_text("number: 2\n")
    return project


def run(small: Project, api: Api) -> str:
    return small.run("python", "run.py", PYTHONPATH=str(ROOT), PREFECT_API_URL=api.url).stdout


def recorded(small: Project) -> tuple[int, str]:
    """Return the parameter and the digest of the output that dvc.lock has."""
    step = YAML(typ="safe").load(small.root / "dvc.lock")["stages"]["step"]
    return step["params"]["params.yaml"]["number"], step["outs"][0]["md5"]


@pytest.mark.slow
def test_after_a_retry_the_lock_file_has_what_was_made_of_these_parameters(small: Project, api: Api) -> None:
    before = recorded(small)
    (small.root / "fails").write_text("may heal")
    said = run(small, api)
    _, (task,) = api.last_run()
    assert task["state"]["name"] == "Completed", said
    assert task["run_count"] == 2
    assert (small.root / "out").read_text() == "number: 2\n"
    number, digest = recorded(small)
    assert (before[0], number) == (1, 2)
    assert digest != before[1]
    assert "up to date" in small.must("dvc", "status")
    (small.root / "out").unlink()  # what the run cache has is true as well
    small.must("dvc", "repro")
    assert (small.root / "out").read_text() == "number: 2\n"


def test_what_dvc_restores_from_its_run_cache_is_cached(small: Project, api: Api) -> None:
    (small.root / "params.yaml").write_text("number: 1\n")
    (small.root / "dvc.lock").unlink()
    (small.root / "out").unlink()
    run(small, api)
    _, (task,) = api.last_run()
    assert (task["state"]["name"], task["state"]["message"]) == ("Cached", "restored from DVC's run cache")
    assert (small.root / "out").read_text() == "number: 1\n"


def test_what_cannot_heal_fails_at_once(small: Project, api: Api) -> None:
    (small.root / "fails").write_text("never")
    run(small, api)
    _, (task,) = api.last_run()
    assert (task["state"]["type"], task["state"]["message"], task["run_count"]) == ("FAILED", "not now", 1)


@pytest.mark.slow
def test_a_download_that_fails_is_tried_again_and_one_that_is_wrong_is_not(
    project: Project, api: Api, server: Server
) -> None:
    digest = "a" * 64
    server.statuses["/net.pth"] = [503]
    server.files["/net.pth"] = b"other weights"
    weights = ("--set", f"backbone.weights={server.url}/net.pth", "--set", f"backbone.sha256={digest}")
    done = flow(project, "--set", "backbone.name=resnet18", *weights, "backbone", PREFECT_API_URL=api.url)
    assert done.returncode == 1
    assert server.asked == ["GET /net.pth", "GET /net.pth"]
    assert "cannot be fetched (HTTP Error 503" in done.stdout
    task = next(task for task in api.last_run()[1] if task["name"] == "backbone")
    assert task["run_count"] == 2
    assert f"{digest} was expected" in task["state"]["message"]


@pytest.mark.slow
def test_a_cluster_that_comes_up_late_is_tried_again_and_its_bytes_are_those_of_dvc_repro(
    project: Project, api: Api, tmp_path: Path
) -> None:
    """The address stands in params.yaml, and nowhere else."""
    port = free_port()
    project.must("python", "-m", "tasks", "set", f"cluster.address=127.0.0.1:{port}")
    for store in ("pixels", "features"):
        shutil.rmtree(project.root / "artifacts" / store)
    other = project.copy(tmp_path / "other")
    log = tmp_path / "log"
    shell = environment(project, PREFECT_API_URL=api.url)
    dask = None
    try:
        with background([sys.executable, "-m", "flows.pipeline"], log, cwd=project.root, env=shell) as process:
            wait_for(lambda: "no Dask scheduler answers" in log.read_text(), 90)
            dask = Cluster(tmp_path / "dask.log", port=port)
            assert process.wait(120) == 0, log.read_text()
        other.must("dvc", "repro")
    finally:
        if dask is not None:
            dask.stop()
    tried = {task["name"]: task["run_count"] for task in api.last_run()[1]}
    assert tried["transform"] > 1
    assert tried["embed"] == 1
    assert "24 images computed, 0 reused" in log.read_text()
    assert project.lock == other.lock
    assert project.artefacts() == other.artefacts()


@pytest.mark.slow
def test_dvcs_own_lock_is_waited_for(small: Project, api: Api) -> None:
    holder = "from dvc.repo import Repo; import time\nwith Repo('.').lock: print(1, flush=True); time.sleep(6)"
    with started([sys.executable, "-c", holder], cwd=small.root, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        run(small, api)  # DVC by itself gives up after three seconds
        assert process.wait() == 0
    _, (task,) = api.last_run()
    assert task["state"]["name"] == "Completed"


@pytest.mark.slow
def test_a_failure_is_told_to_people_and_a_success_is_not(project: Project, api: Api, server: Server) -> None:
    notify = notifying(project, api, server)
    assert flow(project, *notify, PREFECT_API_URL=api.url).returncode == 0
    assert server.posted == []
    done = flow(project, *notify, "--set", "backbone.name=resnt50", PREFECT_API_URL=api.url)
    assert done.returncode == 1
    (posted,) = server.posted
    assert "Did you mean 'resnet50'?" in posted
    run, _ = api.last_run()
    assert f"headstart Failed: {run['name']}" in posted
    assert f"/runs/flow-run/{run['id']}" in posted


def test_a_block_that_is_missing_is_told_before_anything_runs(project: Project, api: Api) -> None:
    done = flow(project, "--notify", "slack-webhook/taem", PREFECT_API_URL=api.url)
    assert done.returncode == 1
    assert "notify is 'slack-webhook/taem', which cannot be loaded" in done.stdout
    assert "Traceback" not in done.stdout
    run, tasks = api.last_run()
    assert (run["state"]["type"], tasks) == ("FAILED", [])
