"""`headstart new` makes a project; `headstart run`, `status` and `report` are its daily commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.orchestration import SLOW_STAGE, Api, background, environment, stages_running, wait_for
from tests.support.projects import SETTINGS, Project, write_photographs

HEADSTART = ("python", "-P", "-m", "headstart")
ON_PHOTOS = tuple(setting for setting in SETTINGS if not setting.startswith("data.root"))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder with photographs in it that is no project."""
    root = tmp_path_factory.mktemp("outside") / "desk"
    root.mkdir()
    write_photographs(root / "photos", 12)
    return Project(root)


@pytest.fixture(scope="module")
def birds(outside: Project) -> Project:
    """A new project after its first run. A module of the user's own has a name that headstart has too."""
    said = outside.must(*HEADSTART, "new", "birds", "--data", "photos")
    assert "cd birds" in said
    made = Project(outside.root / "birds")
    for name in ("tasks.py", "flows.py", "ruamel.py"):
        (made.root / name).write_text("raise ImportError('the file of the user was imported')\n")
    made.must(*HEADSTART, "set", *ON_PHOTOS)
    made.must(*HEADSTART, "run")
    return made


def test_a_new_project_trains_and_is_a_clean_git_and_dvc_repository(birds: Project) -> None:
    assert (birds.root / "artifacts" / "model" / "model.onnx").is_file()
    assert birds.must("git", "log", "--format=%s").splitlines() == ["A new headstart project"]
    changed = {line.split()[-1] for line in birds.must("git", "status", "--short").splitlines()}
    assert changed == {"params.yaml", "dvc.lock", "tasks.py", "flows.py", "ruamel.py"}
    assert "up to date" in birds.must("dvc", "status")
    assert "Running stage" not in birds.must(*HEADSTART, "run")
    assert not (birds.root / "data" / "digits").exists()


def test_what_its_first_images_need_is_set_when_it_is_made(outside: Project, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    photos = sorted((outside.root / "photos").rglob("*.jpg"))
    listed.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in photos))
    made = (*HEADSTART, "new", "far", "--data", str(listed))
    refused = outside.run(*made)
    assert refused.returncode == 1
    assert "`--set data.allow_outside=true` with `headstart new`" in refused.stdout
    assert not (outside.root / "far").exists()
    outside.must(*made, "--set", "data.allow_outside=true", "--set", "split.seed=7")
    params = (outside.root / "far" / "params.yaml").read_text()
    assert re.search(r"^  allow_outside: true ", params, re.MULTILINE)
    assert re.search(r"^  seed: 7$", params, re.MULTILINE)
    wrong = outside.run(*HEADSTART, "new", "wrong", "--set", "split.sead=7")
    assert wrong.returncode == 1
    assert "split.seed" in wrong.stdout
    given = outside.run(*HEADSTART, "new", "wrong", "--set", "data.root=photos")
    assert given.returncode == 1
    assert "--set names data.root, which `headstart new` takes as --data PHOTOS" in given.stdout
    assert not (outside.root / "wrong").exists()


def test_status_and_report_say_where_the_project_stands_from_any_folder_in_it(birds: Project) -> None:
    below = Project(birds.root / "artifacts" / "model")
    said = below.must(*HEADSTART, "status")
    assert re.search(r"^model +artifacts/model, \d+\.\d\d% of \d+ held-out images right$", said, re.MULTILINE)
    assert re.search(r"^to run +nothing", said, re.MULTILINE)
    assert below.must(*HEADSTART, "report").strip() == str(birds.root / "artifacts" / "report.html")
    lines = (birds.root / "params.yaml").read_text()
    try:
        below.must(*HEADSTART, "set", "split.seed=7")
        assert re.search(r"^to run +split \(split.seed\)$", below.must(*HEADSTART, "status"), re.MULTILINE)
        assert json.loads(below.must(*HEADSTART, "status", "--json"))["changed"]["split"] == ["split.seed"]
    finally:
        (birds.root / "params.yaml").write_text(lines)


def test_another_version_of_headstart_makes_every_stage_run_again_and_is_never_used_unnoticed(
    birds: Project, tmp_path: Path
) -> None:
    project = birds.copy(tmp_path / "birds")
    note = project.root / "headstart.json"
    before = note.read_bytes()
    note.write_text('{"version": "0.0.9", "code_sha256": "abc"}')
    project.must("dvc", "commit", "--force", "--quiet")
    done = project.run("dvc", "repro", "--force", "split")
    assert done.returncode != 0
    assert "headstart.json names headstart 0.0.9, code abc" in done.stdout
    assert "Traceback" not in done.stdout
    assert "everything: headstart.json names other code" in project.must(*HEADSTART, "status")
    said = project.must(*HEADSTART, "run", "split")
    assert "run: version 0.0.9 made the results, this is" in said
    visited = re.findall(r"^(?:Running stage|Stage) '(\w+)'", said, re.MULTILINE)  # run, or in DVC's run cache
    assert visited == ["validate", "split"]
    assert note.read_bytes() == before


def test_other_images_are_announced_and_the_results_of_the_first_come_back(project: Project) -> None:
    before = project.artefacts()
    write_photographs(project.root / "other", 8, first=40)
    said = project.must(*HEADSTART, "run", "--data", "other", "validate")
    assert "the results in artifacts/ are those of photos; this run puts those of other in their place." in said
    assert "`headstart new ../other --data 'other'`" in said
    assert project.artefacts() != before
    assert "of other" not in project.must(*HEADSTART, "run", "--data", "photos")
    assert project.artefacts() == before


def test_a_folder_that_cannot_become_a_project_is_left_as_it_was(outside: Project, birds: Project) -> None:
    def refuses(*arguments: str) -> str:
        before = sorted(outside.root.rglob("*"))
        done = outside.run(*HEADSTART, *arguments)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout
        assert sorted(outside.root.rglob("*")) == before
        return done.stdout

    assert "data.root is" in refuses("new", "a/b/cats", "--data", "nowhere")
    assert "holds no image in a class folder" in refuses("new", "photos/ants", "--data", "birds/.dvc")
    assert "has params.yaml already" in refuses("new", "birds")
    assert "is not in a project" in refuses("run")
    assert "is not in a project" in refuses("status")


def test_a_folder_that_holds_the_images_becomes_a_project(outside: Project, tmp_path: Path) -> None:
    inside = Project(tmp_path / "mine")
    write_photographs(inside.root / "photos", 3)
    (inside.root / ".gitignore").write_text("/notes.txt\n")
    said = inside.must(*HEADSTART, "new", ".", "--data", "photos")
    assert "DVC tracks photos now" in said
    assert (inside.root / "photos.dvc").is_file()
    assert inside.must("git", "status", "--short") == ""
    assert re.search(r"^  root: photos ", (inside.root / "params.yaml").read_text(), re.MULTILINE)
    ignored = (inside.root / ".gitignore").read_text().splitlines()
    assert {"/notes.txt", "/artifacts/"} <= set(ignored)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_and_its_stage_without_a_traceback(birds: Project, tmp_path: Path) -> None:
    project, log = birds.copy(tmp_path / "birds"), tmp_path / "log"
    slow = [*SLOW_STAGE]
    shell = {**environment(project), "HEADSTART_CACHE": str(project.cache)}
    write_photographs(project.root / "inside", 3)  # DVC then runs twice, and the second must hear Ctrl-C too
    command = [sys.executable, *HEADSTART[1:], "run", "--data", "inside", *slow, "backbone"]
    with background(command, log, cwd=project.root, env=shell) as process:
        wait_for(lambda: "exporting torchvision/resnet18" in log.read_text(), 90)
        assert stages_running(project)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) != 0
        wait_for(lambda: not stages_running(project), 30)
    assert "Traceback" not in log.read_text()
    assert "interrupted" in log.read_text()


@pytest.mark.slow
def test_a_worker_runs_the_deployments_of_a_project(birds: Project, api: Api, tmp_path: Path) -> None:
    project = birds.copy(tmp_path / "birds")
    (project.root / "ruamel.py").unlink()  # Prefect itself imports from the project's folder first
    shell = {**environment(project, PREFECT_API_URL=api.url), "HEADSTART_CACHE": str(project.cache)}

    def prefect(*arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "prefect", *arguments]
        done = subprocess.run(command, cwd=project.root, env=shell, stdout=-1, stderr=-2, text=True)
        assert done.returncode == 0, done.stdout

    prefect("work-pool", "create", "local", "--type", "process", "--overwrite")
    prefect("--no-prompt", "deploy", "--all")
    prefect("deployment", "run", "headstart/manual")
    command = [sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", "local"]
    with background(command, tmp_path / "worker", cwd=tmp_path, env=shell):
        run, tasks = wait_for(lambda: _finished(api), 120)
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    assert {task["name"] for task in tasks} >= {"validate", "publish"}


def _finished(api: Api) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    found = api.asked("/flow_runs/filter", deployments={"name": {"any_": ["manual"]}})
    ended = [run for run in found if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")]
    return (ended[0], api.tasks(ended[0]["id"])) if ended else None
