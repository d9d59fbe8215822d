"""dvc.yaml, params.yaml, layout.py, tasks/ and flows/ say the same of the pipeline."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from headstart import reviewed
from headstart.evaluation.folder import Choice
from headstart.layout import Layout
from headstart.params import Params
from tasks.__main__ import STAGES
from tests.support import reports
from tests.support.imports import ROOT, entries

DAG: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGE = pytest.mark.parametrize("stage", DAG["stages"])
NOT_OUTPUTS = ("${data.root}", "${data.unlabelled}", reviewed.NAME)
ENVIRONMENT = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
SOURCES = sorted(file for folder in ("headstart", "tasks", "flows") for file in (ROOT / folder).rglob("*.py"))


def outs(stage: str, kinds: tuple[str, ...] = ("outs", "metrics", "plots")) -> dict[str, dict[str, Any]]:
    entries = [entry for kind in kinds for entry in DAG["stages"][stage].get(kind, [])]
    given = [entry if isinstance(entry, dict) else {entry: {}} for entry in entries]
    return {path: options for entry in given for path, options in entry.items()}


def data_deps(stage: str) -> set[str]:
    return {dep for dep in DAG["stages"][stage]["deps"] if not dep.startswith(("tasks/", "headstart/"))}


def code_deps(stage: str) -> set[str]:
    return set(DAG["stages"][stage]["deps"]) - data_deps(stage)


def test_every_stage_is_a_module_of_tasks_and_every_module_a_stage() -> None:
    assert sorted(DAG["stages"]) == STAGES


@STAGE
def test_a_stage_runs_its_own_module(stage: str) -> None:
    assert DAG["stages"][stage]["cmd"] == f"python -m tasks {stage}"
    assert DAG["stages"][stage]["desc"]


def test_every_section_of_the_parameters_is_a_stage_but_for_data() -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert sections == set(YAML(typ="safe").load(ROOT / "params.yaml"))
    assert sections - set(DAG["stages"]) == {"data", "cluster", "cache"}


@STAGE
def test_a_stage_lists_the_entries_of_headstart_that_its_imports_reach(stage: str) -> None:
    """A folder is one entry of dvc.lock, where its files would be a dozen."""
    assert code_deps(stage) == {f"tasks/{stage}.py"} | entries(f"tasks.{stage}")


def test_parameters_and_paths_are_dependencies_of_no_stage() -> None:
    """Values are tracked as parameters and paths as dependencies, so that a new one of either reruns nothing."""
    for stage in DAG["stages"]:
        found = entries(f"tasks.{stage}")
        assert not {"headstart/params.py", "headstart/params_finetune.py", "headstart/layout.py"} & found, stage


def test_packages_hold_nothing_that_a_stage_could_depend_on() -> None:
    """headstart/__init__.py hands out two names when they are asked for, which no stage does."""
    for file in (file for folder in ("headstart", "tasks", "flows") for file in (ROOT / folder).rglob("__init__.py")):
        body = ast.parse(file.read_text()).body
        assert isinstance(body[0], ast.Expr), file
        assert len(body) == 1 or file.parent == ROOT / "headstart", file
    code = "import sys, headstart; print(*(name for name in sys.modules if name.startswith('headstart.')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout.strip() == ""


def test_data_dependencies_are_outputs_of_other_stages() -> None:
    made = {path for stage in DAG["stages"] for path in outs(stage)}
    for stage in DAG["stages"]:
        assert data_deps(stage) - made <= set(NOT_OUTPUTS)


def test_images_without_labels_reach_two_stages_more() -> None:
    """`adapt` fits a head of its own to them, and `evaluate` reads the labels that some of them are given.

    All else that is fitted, and every figure of it, is the same with them and without them: tests/pipeline.
    """
    readers = {stage for stage in DAG["stages"] for dep in data_deps(stage) if "unlabelled" in dep}
    assert readers == {"unlabelled", "adapt", "evaluate"}
    assert outs("unlabelled").keys() == {"artifacts/unlabelled"}


# DVC's run cache leaves out a stage with such an output, so each has its reason in dvc.yaml.
LEFT_IN_PLACE = {"artifacts/accepted.json", "artifacts/model", "data/digits"}


@STAGE
def test_outputs_lie_where_layout_says_and_dvc_can_give_them_back(stage: str) -> None:
    layout = Layout(Path(), data="photos")
    values = [getattr(layout, name) for name in dir(Layout) if isinstance(getattr(Layout, name), property)]
    known = {getattr(value, "folder", value).as_posix() for value in values}
    for path, options in outs(stage).items():
        assert path in known, path
        assert options.get("persist", False) == (path in LEFT_IN_PLACE), path
        assert (options.get("cache") is False) == (path == "data/digits")


def test_layers_are_kept() -> None:
    """pyproject.toml declares them: which room may import which, and what no room may import."""
    done = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout


OFF = """
import sys
from pathlib import Path
from headstart import params, params_file
from headstart.layout import Layout
values = params_file.load(Path("params.yaml"))
assert not values.rank.backbones and not values.finetune.enabled and not values.export.int8
import tasks.{stage}
tasks.{stage}.run(values, Layout.of(Path("{root}"), values))
print(*sorted({{"torch", "polars", "onnxruntime", "pandera", "scipy"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("stage", ["rank", "finetune", "quantize"])
def test_a_stage_that_is_off_imports_nothing_that_it_would_need(stage: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    choice = Choice(chosen="frozen", n_images=1, temperature=1.0, calibration=reports.CALIBRATION, contest=None)
    choice.write(layout.evaluation / "candidates.json")
    for folder, record, names in (
        (layout.backbone, BACKBONE, ("resize", "backbone")),
        (layout.head, HEAD, ("head",)),
    ):
        folder.mkdir(parents=True)
        for name in names:
            (folder / f"{name}.onnx").write_bytes(b"a graph")
        record.write(folder / f"{folder.name}.json")
    code = OFF.format(stage=stage, root=tmp_path)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


GRAPH = hashlib.sha256(b"a graph").hexdigest()
BACKBONE = reports.BACKBONE.model_copy(update={"resize_onnx_sha256": GRAPH, "backbone_onnx_sha256": GRAPH})
HEAD = reports.HEAD.model_copy(
    update={"levels": tuple(level.name for level in BACKBONE.levels), "files": {"head.onnx": GRAPH}}
)


LIGHT = [stage for stage in DAG["stages"] if stage not in ("backbone", "finetune")]


@pytest.mark.parametrize("stage", LIGHT)
def test_a_stage_does_not_import_torch(stage: str) -> None:
    code = f"import sys, tasks.{stage}; sys.exit(bool({{'torch', 'torchvision', 'timm'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_command_line_for_deployment_imports_nothing_of_the_pipeline() -> None:
    code = (
        "import sys; before = set(sys.modules); import headstart.commands.main;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    allowed = {"headstart", "numpy", "PIL", "onnxruntime", "simplejpeg"}
    others = set(found.stdout.split()) - sys.stdlib_module_names - allowed
    assert {name for name in others if not name.startswith(("_", "cython"))} == set()  # parts of simplejpeg


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_is_ever_unpickled(file: Path) -> None:
    """torch.load with weights_only=True reads tensors alone; every other way to unpickle can run code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, options = ast.unparse(node.func), {option.arg: ast.unparse(option.value) for option in node.keywords}
            assert owner not in ("torch.export.load", "torch.jit.load", "torch.package.PackageImporter")
            assert owner != "torch.load" or options.get("weights_only") == "True"
            assert options.get("allow_pickle", "False") == "False"


def test_no_telemetry_leaves() -> None:
    import configparser
    import tomllib

    dvc = configparser.ConfigParser()
    dvc.read(ROOT / ".dvc" / "config")
    assert dvc["core"]["analytics"] == "false"
    assert dvc["core"]["check_update"] == "false"
    prefect = tomllib.loads((ROOT / "prefect.toml").read_text())
    assert prefect["server"]["analytics_enabled"] is False
    assert "DO_NOT_TRACK" in (ROOT / "flows" / "pipeline.py").read_text()
    assert "export DO_NOT_TRACK := 1" in (ROOT / "Makefile").read_text()


def test_the_lock_file_pins_everything_with_hashes_and_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    blocks = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(blocks) > 50
    assert all("==" in line for line in blocks)
    assert text.count("--hash=sha256:") >= len(blocks)


def test_the_tree_in_the_docs_names_every_room() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text()
    for entry in (ROOT / "headstart").iterdir():
        if not entry.name.startswith("__") and entry.name != "py.typed":
            assert f"      {entry.name}{'/' if entry.is_dir() else ''} " in tree, entry
