"""Which project modules a module imports, read from its source: what dvc.yaml has to list as dependencies."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("headstart", "tasks", "flows", "tests")


def file_of(module: str) -> Path | None:
    """Return the file of a project module, None for a package (whose __init__ holds a docstring alone)."""
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    return path if path.is_file() else None


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the dotted names that a file imports anywhere, but for those under `if TYPE_CHECKING`."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: relative imports are not followed"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(names)


def project_files(file: Path) -> set[Path]:
    """Return `file` and every project file that it imports, directly or not."""
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        names = (name for name in imported(current) if name.partition(".")[0] in PACKAGES)
        waiting.extend(found for name in names if (found := file_of(name)))
    return seen
