"""Functions and files stay small enough to be read at once; what is longer says why in a comment beginning `Long:`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.images import ROOT

MAX_FUNCTION_LINES, MAX_FILE_LINES = 60, 350
SOURCES = sorted(file for each in ("headstart", "tasks", "flows") for file in (ROOT / each).rglob("*.py"))


@pytest.mark.parametrize("file", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_can_be_read_at_once(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE_LINES or is_explained(lines)
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = lines[node.lineno - 1 : node.end_lineno]
            assert len(body) <= MAX_FUNCTION_LINES or is_explained(body), node.name


def is_explained(lines: list[str]) -> bool:
    return any(line.strip().startswith("# Long: ") for line in lines)
