"""The same DAG under Prefect, with its temporary server and with one that runs."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from headstart import params_file
from tasks.__main__ import STAGES
from tests.support.orchestration import Api, flow
from tests.support.projects import Project, begun, checkout, write_photographs


@pytest.mark.slow
def test_a_flow_from_scratch_leaves_the_lock_file_of_dvc_repro(base: Project, tmp_path: Path) -> None:
    project = begun(tmp_path / "elsewhere" / "under another name")
    done = flow(project)
    assert done.returncode == 0, done.stdout
    assert project.lock == base.lock
    assert project.artefacts() == base.artefacts()
    assert "up to date" in project.must("dvc", "status")


@pytest.mark.slow
def test_the_embedded_dataset_under_prefect_and_under_dvc_ends_in_the_same_bytes(tmp_path: Path, api: Api) -> None:
    plain, flowed = checkout(tmp_path / "plain"), checkout(tmp_path / "flowed")
    plain.must("dvc", "repro")
    done = flow(flowed, PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    run, tasks = api.last_run()
    assert run["name"].startswith("digits tf_efficientnet_lite0 ")
    assert {task["name"]: task["state"]["name"] for task in tasks} == dict.fromkeys(STAGES, "Completed")
    assert flowed.lock == plain.lock
    assert flowed.artefacts() == plain.artefacts()


def test_every_stage_that_dvc_visits_is_a_task_run_and_one_that_it_skips_is_cached(project: Project, api: Api) -> None:
    before = project.artefacts()
    done = flow(project, PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    run, tasks = api.last_run()
    assert run["state"]["type"] == "COMPLETED"
    names = [task["name"] for task in tasks]
    assert sorted(names) == sorted(STAGES)
    assert names.index("validate") < names.index("split") < names.index("evaluate") < names.index("export")
    assert {task["state"]["name"] for task in tasks} == {"Cached"}
    assert project.artefacts() == before
    assert set(api.artifacts()) == {"result"}


def test_a_stage_that_fails_says_why_and_once_mended_the_lock_file_is_truthful(
    base: Project, project: Project, api: Api
) -> None:
    before = project.artefacts()
    path = project.root / "params.yaml"
    good = path.read_text()
    path.write_text(good.replace("name: test_efficientnet", "name: resnt50"))
    done = flow(project, PREFECT_API_URL=api.url)
    assert done.returncode == 1
    message = "backbone.name is 'resnt50', which is not known. Did you mean 'resnet50'?"
    assert message in done.stdout
    run, tasks = api.last_run()
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    (failed,) = [task for task in tasks if task["state"]["type"] == "FAILED"]
    assert failed["name"] == "backbone"
    assert message in failed["state"]["message"]
    project.must("dvc", "checkout")  # DVC removes the outputs of a stage before it runs it, and gives them back
    assert project.artefacts() == before
    assert "artifacts" not in project.must("git", "status", "--short")  # `git add --all` takes no model in

    path.write_text(good)
    assert flow(project, PREFECT_API_URL=api.url).returncode == 0
    assert project.lock == base.lock
    assert "up to date" in project.must("dvc", "status")


@pytest.mark.slow
def test_overrides_make_what_dvc_repro_makes_of_them_and_end_with_the_run_unless_kept(
    base: Project, project: Project, api: Api, tmp_path: Path
) -> None:
    other = base.copy(tmp_path / "other")
    other.must("python", "-m", "tasks", "set", "train_head.folds=4")
    other.must("dvc", "repro")
    accepted = json.loads((project.root / "artifacts/evaluation/metrics.json").read_text())["test"]
    project.must("git", "add", "dvc.lock", "params.yaml")
    project.must("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "-m", "accepted")
    not_activated = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PREFECT_HOME": str(tmp_path / "prefect")}
    before = (project.root / "params.yaml").read_bytes()
    command = (sys.executable, "-m", "flows.pipeline", "--set", "train_head.folds=4", "--note", "fewer folds")
    done = project.run(*command, PREFECT_API_URL=api.url, **not_activated)
    assert done.returncode == 0, done.stdout
    assert "Stage 'embed' didn't change, skipping" in done.stdout  # DVC's own lines are in the log
    assert (project.root / "params.yaml").read_bytes() == before
    assert project.lock == other.lock
    assert project.artefacts() == other.artefacts()
    shown = api.artifacts()
    assert {"metrics", "model", "head-candidates"} <= set(shown)
    assert not {"validation", "contact-sheet"} & set(shown)  # of stages that did not run
    rows = {row["score"]: row for row in json.loads(shown["metrics"]["data"])}
    test = json.loads((project.root / "artifacts/evaluation/metrics.json").read_text())["test"]
    assert {name: row["value"] for name, row in rows.items()} == test
    assert {name: row["last commit"] for name, row in rows.items()} == accepted
    assert all(row["change"] == pytest.approx(test[name] - accepted[name], abs=1e-6) for name, row in rows.items())
    digest = sha256((project.root / "artifacts/model/model.onnx").read_bytes()).hexdigest()
    assert f"model_sha256 `{digest}`" in shown["model"]["data"]
    run, tasks = api.last_run()
    assert_only_direct_edges(tasks)
    ran = {task["name"] for task in tasks if task["state"]["name"] == "Completed"}
    assert ran == {
        "rank",
        "train_head",
        "adapt",
        "audit",
        "finetune",
        "find_accepted",
        "evaluate",
        "quantize",
        "report",
        "export",
        "publish",
    }
    assert "artifacts/head" in next(task for task in tasks if task["name"] == "train_head")["state"]["message"]
    assert re.fullmatch(r"photos test_efficientnet [0-9a-f]{8} fewer folds", run["name"])
    assert run["tags"][2:] == ["dataset:photos", "backbone:test_efficientnet"]
    assert run["tags"][:1] == [f"accuracy {test['accuracy']:.2%}"]
    assert run["tags"][1].startswith("95% CI ")
    words = f"{test['accuracy']:.2%} of {test['n_images']} held-out images right (95% interval"
    assert words in run["state"]["message"]
    assert words in shown["result"]["data"]
    assert f"[report.html](file://{project.root}/artifacts/report.html)" in shown["result"]["data"]

    kept = project.run(*command[:-2], "--keep", PREFECT_API_URL=api.url, **not_activated)
    assert kept.returncode == 0, kept.stdout
    assert (project.root / "params.yaml").read_bytes() == (other.root / "params.yaml").read_bytes()
    assert {task["state"]["name"] for task in api.last_run()[1]} == {"Cached"}
    assert "up to date" in project.must("dvc", "status")

    (project.root / "params.yaml").write_bytes(before)
    back = flow(project, PREFECT_API_URL=api.url)
    assert back.returncode == 0, back.stdout
    states = {task["name"]: task["state"] for task in api.last_run()[1]}
    assert {name for name, state in states.items() if state["name"] != "Cached"} <= {"find_accepted", "publish"}
    for stage in ("train_head", "evaluate", "report", "export"):
        assert states[stage]["message"] == "restored from DVC's run cache"


def assert_only_direct_edges(tasks: list[dict[str, Any]]) -> None:
    """No task run waits for one that it also waits for by way of another."""
    waits = {task["id"]: {each["id"] for each in task["task_inputs"].get("wait_for", [])} for task in tasks}
    above: dict[str, set[str]] = {}
    for task in tasks:  # in the order in which they began
        near = waits[task["id"]]
        above[task["id"]] = near.union(*(above[other] for other in near))
        assert not any(one in above[other] for one in near for other in near), task["name"]
    assert sum(map(len, waits.values())) >= len(STAGES) - 2


def test_an_override_of_an_unknown_parameter_is_refused_with_the_nearest_name(project: Project, api: Api) -> None:
    before, params = project.artefacts(), (project.root / "params.yaml").read_bytes()
    done = flow(project, "--set", "train_head.fold=4", PREFECT_API_URL=api.url)
    assert done.returncode == 1
    message = "train_head.fold is not a parameter. Did you mean 'train_head.folds'?"
    assert message in done.stdout
    run, tasks = api.last_run()
    assert run["state"]["type"] == "FAILED"
    assert message in run["state"]["message"]
    assert tasks == []
    assert project.artefacts() == before
    assert (project.root / "params.yaml").read_bytes() == params


@pytest.mark.slow
def test_images_are_named_on_the_command_line_as_for_a_run(tmp_path: Path) -> None:
    project = begun(tmp_path / "checkout")
    write_photographs(tmp_path / "others", 6)
    refused = flow(project, "validate", "--data", "nowhere")
    assert (refused.returncode, refused.stdout.count("\n")) == (1, 1)
    assert "data.root is 'nowhere', which does not exist." in refused.stdout
    done = flow(project, "validate", "--data", str(tmp_path / "others"))
    assert done.returncode == 0, done.stdout
    assert params_file.load(project.root / "params.yaml").data.root == str(tmp_path / "others")
    assert "12 images" in done.stdout
    assert "to see this run: `prefect server start`, then http://127.0.0.1:4200/runs/flow-run/" in done.stdout


def test_a_server_that_does_not_answer_is_told_in_a_line(tmp_path: Path) -> None:
    project = begun(tmp_path / "checkout")
    done = flow(project, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2
    assert done.stdout.startswith("PREFECT_API_URL is http://127.0.0.1:9/api, and no server answers there (")
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_new_images_start_a_run_that_shows_its_progress_its_pictures_and_its_tables_and_nothing_new_does_not(
    project: Project, api: Api
) -> None:
    done = flow(project, "--only-new-data", PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    run, tasks = api.last_run()
    assert (run["state"]["name"], tasks) == ("Cached", [])
    assert run["state"]["message"] == "the images at photos have not changed"

    project.must("python", "-m", "tasks", "set", "train_head.folds=3")  # a change, but not of the images
    assert flow(project, "--only-new-data", PREFECT_API_URL=api.url).returncode == 0
    assert api.last_run()[0]["state"]["name"] == "Cached"

    write_photographs(project.root / "photos", 4, first=50)
    done = flow(project, "--only-new-data", PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    run, tasks = api.last_run()
    assert run["state"]["name"] == "Completed"
    assert {task["name"] for task in tasks if task["state"]["name"] == "Completed"} >= {"validate", "embed", "export"}

    shown = api.artifacts()
    assert {"validation", "metrics", "model", "head-candidates", "contact-sheet", "confusion-matrix"} <= set(shown)
    for stage in ("validate", "transform", "embed", "train-head", "export"):
        assert float(shown[f"{stage}-progress"]["data"]) == 100.0, stage
    assert re.search(r"embedding: 32 of 32 images(, \d+\.\d per second)?", shown["embed-progress"]["description"])
    for key, kind in (("confusion-matrix", "PNG"), ("contact-sheet", "JPEG")):
        found = re.fullmatch(r"!\[.+\]\(data:image/(\w+);base64,(.+)\)", shown[key]["data"])
        assert found is not None
        assert found[1] == kind.lower()
        picture = Image.open(io.BytesIO(base64.b64decode(found[2])))
        assert picture.format == kind
        assert min(picture.size) > 150
    candidates = json.loads(shown["head-candidates"]["data"])
    assert {"softmax", "ridge", "lda", "prototype"} <= {row["kind"] for row in candidates}
    assert sum(row["chosen"] for row in candidates) == 1
    assert "train-head: " not in done.stdout
    assert done.stdout.count("3-fold cross-validation: ") == 1  # told once, not by stage, DVC and Prefect each


@pytest.mark.slow
def test_what_is_pushed_is_pulled_elsewhere_and_computed_no_more(project: Project, api: Api, tmp_path: Path) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = flow(project, "--push", PREFECT_API_URL=api.url)
    assert done.returncode == 1
    assert "no remote" in done.stdout

    project.must("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.must("dvc", "add", "--quiet", "photos")
    done = flow(project, "--push", PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    (push,) = [task for task in api.last_run()[1] if task["name"] == "push"]
    assert int(push["state"]["message"].removesuffix(" files sent")) > 24
    project.must("git", "add", "--all")
    project.must("git", *author, "commit", "--quiet", "-m", "photographs, and what was made of them")

    other = Project(tmp_path / "other")
    project.must("git", "clone", "--quiet", str(project.root), str(other.root))
    assert not (other.root / "photos").exists()
    done = flow(other, "--pull", PREFECT_API_URL=api.url)
    assert done.returncode == 0, done.stdout
    _, tasks = api.last_run()
    states = {task["name"]: task["state"]["name"] for task in tasks}
    assert tasks[0]["name"] == "pull"
    assert states["pull"] == "Completed"
    assert {states[stage] for stage in ("validate", "backbone", "transform", "embed", "export")} == {"Cached"}
    assert other.artefacts() == project.artefacts()


@pytest.mark.slow
def test_nothing_is_asked_of_any_host_outside_this_machine(project: Project, tmp_path: Path) -> None:
    guard = tmp_path / "guard"
    guard.mkdir()
    (guard / "sitecustomize.py").write_text(GUARD.format(log=str(tmp_path / "asked")))
    project.must("python", "-m", "tasks", "set", "train_head.folds=3")
    done = flow(project, "--force", "split", PYTHONPATH=str(guard))  # with a temporary server, which it watches too
    assert done.returncode == 0, done.stdout
    assert "127.0.0.1" in (tmp_path / "asked.inside").read_text()  # the guard saw what there was to see
    assert not (tmp_path / "asked").exists(), (tmp_path / "asked").read_text()


@pytest.mark.slow
def test_a_temporary_server_that_is_slow_to_start_is_waited_for(project: Project, tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(LATE)
    done = flow(project, PYTHONPATH=str(tmp_path / "late"))
    assert done.returncode == 0, done.stdout


LATE = """
import sys, time

if any("uvicorn" in each for each in sys.orig_argv):
    time.sleep(25)
"""

GUARD = """
import ipaddress, sys

def inside(host):
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False

def hook(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    with open("{log}" + (".inside" if inside(host) else ""), "a") as file:
        file.write(f"{{host}} by {{sys.argv}}\\n")
    if not inside(host):
        raise OSError(f"{{host}} is outside this machine")

sys.addaudithook(hook)
"""
