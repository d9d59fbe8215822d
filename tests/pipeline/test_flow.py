"""The same DAG under Prefect, with its temporary server and with one that runs."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tasks.__main__ import STAGES
from tests.pipeline.conftest import Project, begun


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server of its own, which ends with the module."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": api,
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{api}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((folder / "log").read_text())
        yield api
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def flow(project: Project, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    home = str(project.root.parent / "prefect")
    return project.run("python", "-m", "flows.pipeline", *arguments, PREFECT_HOME=home, **environment)


def asked(api: str, path: str, **body: object) -> Any:
    request = urllib.request.Request(
        f"{api}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def last_run(api: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the newest flow run and its task runs in the order in which they began."""
    (run,) = asked(api, "/flow_runs/filter", sort="START_TIME_DESC", limit=1)
    tasks = asked(api, "/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    return run, sorted(tasks, key=lambda task: task["start_time"])


def artifacts(api: str) -> dict[str, Any]:
    """Return what the newest flow run shows on its page, by key."""
    run, _ = last_run(api)
    found = asked(api, "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run["id"]]}})
    return {artifact["key"]: artifact for artifact in found}


def test_a_flow_from_scratch_leaves_the_lock_file_of_dvc_repro(base: Project, tmp_path: Path) -> None:
    project = begun(tmp_path / "project")
    done = flow(project)
    assert done.returncode == 0, done.stdout
    assert project.lock == base.lock
    assert project.artefacts() == base.artefacts()
    assert "up to date" in project.must("dvc", "status")


def test_every_stage_that_dvc_visits_is_a_task_run_and_one_that_it_skips_is_cached(
    project: Project, server: str
) -> None:
    before = project.artefacts()
    done = flow(project, PREFECT_API_URL=server)
    assert done.returncode == 0, done.stdout
    run, tasks = last_run(server)
    assert run["state"]["type"] == "COMPLETED"
    names = [task["name"] for task in tasks]
    assert sorted(names) == sorted(STAGES)
    assert names.index("validate") < names.index("split") < names.index("evaluate") < names.index("export")
    assert {task["state"]["name"] for task in tasks} == {"Cached"}
    assert project.artefacts() == before
    assert artifacts(server) == {}


def test_what_a_parameter_touches_runs_and_the_lock_file_is_that_of_dvc_repro(
    base: Project, project: Project, server: str, tmp_path: Path
) -> None:
    other = base.copy(tmp_path / "other")
    for each in (project, other):
        each.must("python", "-m", "tasks", "set", "train_head.folds=3")
    done = flow(project, PREFECT_API_URL=server)
    assert done.returncode == 0, done.stdout
    other.must("dvc", "repro")
    assert project.lock == other.lock
    _, tasks = last_run(server)
    states = {task["name"]: task["state"]["name"] for task in tasks}
    assert {name for name, state in states.items() if state == "Completed"} == {
        "train_head",
        "finetune",
        "evaluate",
        "export",
    }
    assert "artifacts/head" in next(task for task in tasks if task["name"] == "train_head")["state"]["message"]


def test_a_stage_that_fails_says_why_and_its_run_fails(project: Project, server: str) -> None:
    before = project.artefacts()
    path = project.root / "params.yaml"
    path.write_text(path.read_text().replace("name: tf_efficientnet_lite0", "name: resnt50"))
    done = flow(project, PREFECT_API_URL=server)
    assert done.returncode == 1
    message = "backbone.name is 'resnt50', which is not known. Did you mean 'resnet50'?"
    assert message in done.stdout
    run, tasks = last_run(server)
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    (failed,) = [task for task in tasks if task["state"]["type"] == "FAILED"]
    assert failed["name"] == "backbone"
    assert message in failed["state"]["message"]
    assert project.artefacts() == before


def test_a_stage_that_fails_and_is_mended_leaves_a_truthful_lock_file(base: Project, project: Project) -> None:
    path = project.root / "params.yaml"
    good = path.read_text()
    path.write_text(good.replace("name: tf_efficientnet_lite0", "name: resnt50"))
    assert flow(project).returncode == 1
    path.write_text(good)
    assert flow(project).returncode == 0
    assert project.lock == base.lock
    assert "up to date" in project.must("dvc", "status")


def test_ctrl_c_ends_the_stage_and_leaves_no_lock_behind(project: Project) -> None:
    project.must("python", "-m", "tasks", "set", "backbone.name=resnet18", "backbone.weights=random")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PREFECT_HOME": str(project.root.parent / "prefect"),
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline"],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "exporting torchvision/resnet18" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "backbone: interrupted; what was there before is as it was" in said
    status = project.run("dvc", "status")
    assert "busy" not in status.stdout
    assert "backbone:" in status.stdout


def test_overrides_end_in_params_and_lock_that_belong_together(
    base: Project, project: Project, server: str, tmp_path: Path
) -> None:
    other = base.copy(tmp_path / "other")
    other.must("python", "-m", "tasks", "set", "train_head.folds=4")
    other.must("dvc", "repro")
    done = flow(project, "--set", "train_head.folds=4", "--note", "fewer folds", PREFECT_API_URL=server)
    assert done.returncode == 0, done.stdout
    assert (project.root / "params.yaml").read_bytes() == (other.root / "params.yaml").read_bytes()
    assert project.lock == other.lock
    assert project.artefacts() == other.artefacts()
    shown = artifacts(server)
    assert set(shown) == {"metrics", "model"}  # of the stages that ran
    rows = {row["score"]: row for row in json.loads(shown["metrics"]["data"])}
    test = json.loads((project.root / "artifacts/evaluation/metrics.json").read_text())["test"]
    assert {name: row["value"] for name, row in rows.items()} == test
    digest = sha256((project.root / "artifacts/model/model.onnx").read_bytes()).hexdigest()
    assert f"SHA-256 of model.onnx: `{digest}`" in shown["model"]["data"]
    run, _ = last_run(server)
    assert re.fullmatch(r"photos tf_efficientnet_lite0 [0-9a-f]{8} fewer folds", run["name"])
    assert {"dataset:photos", "backbone:tf_efficientnet_lite0"} <= set(run["tags"])


def test_an_override_of_an_unknown_parameter_is_refused_with_the_nearest_name(project: Project, server: str) -> None:
    before, params = project.artefacts(), (project.root / "params.yaml").read_bytes()
    done = flow(project, "--set", "train_head.fold=4", PREFECT_API_URL=server)
    assert done.returncode == 1
    message = "train_head.fold is not a parameter. Did you mean 'train_head.folds'?"
    assert message in done.stdout
    run, tasks = last_run(server)
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    assert tasks == []
    assert project.artefacts() == before
    assert (project.root / "params.yaml").read_bytes() == params
