"""Where this tool's own files are: in a checkout of its repository, or installed from a wheel.

A checkout has tasks/, flows/ and the files of a project beside headstart/. A wheel has them inside it (setup.py), since
top-level modules named `tasks` and `flows` would meet those of others. Only the standard library is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

PACKAGE = Path(__file__).resolve().parents[1]
IS_INSTALLED = (PACKAGE / "tasks").is_dir()
_NOT_CODE = ("__pycache__", "py.typed")  # parts of a path; files in __pycache__ come and go while others read it


def module(name: str) -> ModuleType:
    """Import `tasks.X` or `flows.X`, wherever it is."""
    if IS_INSTALLED:
        return importlib.import_module(f"headstart.{name}")
    folder = str(PACKAGE.parent)
    if sys.path[0] != folder:  # before the current folder, which may have a module `tasks` of its own
        sys.path.insert(0, folder)
    return importlib.import_module(name)


def project_file(name: str) -> str:
    """Return the text of one of the files that a new project begins with, such as dvc.yaml.

    params.yaml is a copy as shipped: that of a checkout is its user's, who changes it.
    """
    shipped = PACKAGE / "project" / name
    return (shipped if shipped.exists() else PACKAGE.parent / name).read_text(encoding="utf-8")


def stages() -> list[str]:
    """Return the names of the stages, without importing any."""
    folder = PACKAGE / "tasks" if IS_INSTALLED else PACKAGE.parent / "tasks"
    return sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))


def parameters() -> list[str]:
    """Return the dotted names of the parameters that a new project has, without a parser of YAML."""
    names: list[str] = []
    section = ""
    for line in project_file("params.yaml").splitlines():
        if found := re.match(r"(  )?(\w+):", line):
            section, names = (section, [*names, f"{section}.{found[2]}"]) if found[1] else (found[2], names)
    return names


def version() -> str:
    """Return the version of the installed package, or 'unknown' where a copy runs without having been installed."""
    try:
        return metadata.version("headstart")
    except metadata.PackageNotFoundError:
        return "unknown"


def code_sha256() -> str:
    """Return one digest of all code that stages could run: headstart/ and tasks/, the same from either place."""
    tasks = PACKAGE / "tasks" if IS_INSTALLED else PACKAGE.parent / "tasks"
    of_wheel_alone = [PACKAGE / name for name in ("tasks", "flows", "project")]
    listed = {}
    for folder, prefix in ((PACKAGE, "headstart"), (tasks, "tasks")):
        for file in folder.rglob("*"):
            is_elsewhere = folder == PACKAGE and any(file.is_relative_to(each) for each in of_wheel_alone)
            below = file.relative_to(folder)
            if file.is_file() and not {*below.parts} & {*_NOT_CODE} and not is_elsewhere:
                listed[f"{prefix}/{below.as_posix()}"] = file
    digest = hashlib.sha256()
    for name, file in sorted(listed.items()):
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
