"""What README.md and the pages name exists: files, targets of the Makefile, stages, parameters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from headstart.commands.main import COMMANDS, MODEL_COMMANDS
from tasks.__main__ import STAGES
from tests.support.images import ROOT

MAX_README_LINES = 130
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "artifacts" / "README.md"]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

PARAMETERS = {section: set(values) for section, values in YAML(typ="safe").load(ROOT / "params.yaml").items()}
FILE_TYPES = {"csv", "html", "int8", "json", "onnx", "parquet", "py", "safetensors"}  # report.html is no parameter


def code_of(page: Path) -> str:
    """Return the code of a page: fenced blocks, indented blocks and what stands in backticks."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    indented = re.findall(r"^    .+", text, re.MULTILINE)
    return "\n".join([*fenced, *indented, *re.findall(r"`([^`\n]+)`", text)])


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


@EACH_PAGE
def test_links_point_at_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []


@EACH_PAGE
def test_commands_of_make_are_targets(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:^\s*|&& )make ([a-z][a-z-]*)", code_of(page), re.MULTILINE)
    assert set(named) - set(targets) == set()


@EACH_PAGE
def test_commands_of_tasks_are_stages(page: Path) -> None:
    named = set(re.findall(r"(?:python -m tasks|headstart stage) ([a-z_]+)", code_of(page)))
    assert named - {*STAGES, "set", "summary"} == set()


@EACH_PAGE
def test_commands_of_headstart_exist(page: Path) -> None:
    code = code_of(page)
    named = set(re.findall(r"(?:^ *|[/(]|&& )headstart ([a-z]+)", code, re.MULTILINE))
    assert named - {*COMMANDS, *MODEL_COMMANDS, "completion"} == set()


@EACH_PAGE
def test_parameters_exist(page: Path) -> None:
    sections = "|".join(PARAMETERS)
    named = re.findall(rf"(?<![\w./-])({sections})\.([a-z]\w*)", code_of(page))
    assert [f"{section}.{name}" for section, name in named if name not in PARAMETERS[section] | FILE_TYPES] == []


def test_the_pages_are_searched() -> None:
    code = "\n".join(map(code_of, PAGES))
    for expected in ("make run", "headstart set", "finetune.enabled=true", "split.seed"):
        assert expected in code


def test_the_tests_that_the_page_on_reliability_names_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    sources = {file: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
    functions = {name for text in sources.values() for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    named = set(re.findall(r"\b(test_\w+)(?=`)", text))
    assert len(named) > 20
    assert named - functions == set()
    files = set(re.findall(r"`(tests/[\w/.]+\.py)", text)) | {
        f"tests/hostile/{name}" for name in re.findall(r"`(test_\w+\.py)", text)
    }
    assert {name for name in files if not (ROOT / name).is_file()} == set()
