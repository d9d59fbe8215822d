"""A new project begins with what the repository has: the DAG, the parameters, the flow. One command runs all."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from ruamel.yaml import YAML

from headstart import params_file
from headstart.commands import main, new, origin
from tests.support.images import ROOT

DAG: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
CODE = ("tasks/", "headstart/")
NO_DIGITS = {name: stage for name, stage in DAG["stages"].items() if name != "sample"}

SHIPPED = "headstart/project/params.yaml"


def project_dag(has_digits: bool) -> dict[str, Any]:
    return YAML(typ="safe").load(new.project_dag((ROOT / "dvc.yaml").read_text(), has_digits))  # type: ignore[no-any-return]


@pytest.mark.parametrize("stages", [DAG["stages"], NO_DIGITS], ids=["digits", "photographs"])
def test_a_project_has_the_dag_of_the_repository_with_one_dependency_on_code(stages: dict[str, Any]) -> None:
    derived = project_dag("sample" in stages)
    expected = {}
    for name, stage in stages.items():
        deps = ["headstart.json", *(dep for dep in stage.get("deps", []) if not dep.startswith(CODE))]
        expected[name] = {**stage, "cmd": f"headstart stage {name}", "deps": deps}
    assert derived["stages"] == expected
    assert {key: value for key, value in derived.items() if key != "stages"} == {
        key: value for key, value in DAG.items() if key != "stages"
    }


def test_the_files_of_a_project_are_the_repositorys_but_for_what_is_the_projects_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headstart", "new", str(tmp_path / "birds")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for name in ("prefect.toml", ".dvcignore", ".dvc/config"):
        assert (tmp_path / "birds" / name).read_text() == (ROOT / name).read_text()
    yaml = YAML(typ="safe")
    assert yaml.load(tmp_path / "birds" / "params.yaml") == yaml.load(ROOT / SHIPPED)
    theirs, ours = (yaml.load(folder / "prefect.yaml") for folder in (tmp_path / "birds", ROOT))
    assert theirs["name"] == "birds"
    for deployment, original in zip(theirs["deployments"], ours["deployments"], strict=True):
        assert load_flow_from_entrypoint(deployment["entrypoint"]).name == "headstart"
        assert {**deployment, "entrypoint": original["entrypoint"]} == original
    text = "".join((tmp_path / "birds" / name).read_text() for name in ("params.yaml", "dvc.yaml", "prefect.yaml"))
    for elsewhere in ("docs/", "python -m tasks", "python -m flows"):  # a project has none of these
        assert elsewhere not in text


def test_the_parameters_as_shipped_are_those_of_the_repository() -> None:
    """There are two files, since one of them is changed by who works in a checkout: then git has what it was."""
    git = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, check=False)
    assert (ROOT / SHIPPED).read_bytes() in (git.stdout, (ROOT / "params.yaml").read_bytes())


def test_a_project_made_in_a_checkout_has_none_of_its_users_parameters(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for folder in ("headstart", "tasks", "flows", ".dvc"):
        ignored = shutil.ignore_patterns("__pycache__", "tmp", "cache")
        shutil.copytree(ROOT / folder, checkout / folder, ignore=ignored)
    for name in ("dvc.yaml", "params.yaml", "prefect.yaml", "prefect.toml", ".dvcignore"):
        shutil.copy2(ROOT / name, checkout)
    params_file.assign(checkout / "params.yaml", ["data.root=photos", "rank.backbones=[a]", "backbone.name=ranked"])
    command = [sys.executable, "-m", "headstart", "new", str(tmp_path / "birds")]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(command, cwd=checkout, check=True, capture_output=True, env=environment)
    made = params_file.load(tmp_path / "birds" / "params.yaml")
    assert (made.data.root, made.backbone.name, made.rank.backbones) == ("data/digits", "tf_efficientnet_lite0", ())


@pytest.mark.parametrize("folder", ["tasks", "flows"])
def test_tasks_and_flows_import_their_own_relatively_so_that_a_wheel_can_hold_them(folder: str) -> None:
    for file in (ROOT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] not in ("tasks", "flows"), file
            elif isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & {"tasks", "flows"}, file


def test_the_help_fits_a_screen_and_names_every_command() -> None:
    lines = main.text_of_help().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    (choices,) = (action.choices for action in main.parser()._actions if action.dest == "command")
    assert choices is not None
    named = {line.split()[0] for line in lines if line.startswith("  ")}
    assert named == {*choices, *main.own_parsers(), "--version"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("headstart st", {"status", "stage"}),
        ("headstart run --f", {"--force"}),
        ("headstart completion b", {"bash"}),
        ("headstart stage emb", {"embed"}),
        ("headstart set split.s", {"split.seed="}),
        ("headstart predict READ", {"README.md"}),
    ],
)
def test_the_completion_for_bash_offers_commands_and_options(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    shell = (
        f"source <({sys.executable} -m headstart completion bash); COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1};"
        " _headstart; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_the_completion_knows_every_stage_and_parameter() -> None:
    assert set(origin.stages()) == set(DAG["stages"])
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    assert set(origin.parameters()) == {f"{section}.{name}" for section, names in values.items() for name in names}


def test_the_code_has_one_digest_that_changes_with_any_file_of_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {"headstart/a.py": "1", "tasks/b.py": "2", "headstart/__pycache__/a.pyc": "3"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(origin, "PACKAGE", tmp_path / "headstart")
    first = origin.code_sha256()
    (tmp_path / "headstart/__pycache__/a.pyc").write_text("4")
    assert origin.code_sha256() == first
    (tmp_path / "tasks/b.py").write_text("5")
    assert origin.code_sha256() != first
