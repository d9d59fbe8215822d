"""Which project modules a module imports: what dvc.yaml has to list as dependencies."""

from __future__ import annotations

from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[2]
# Imports for annotations alone are none: a parameter or a path that a stage does not read cannot change what it writes.
GRAPH = grimp.build_graph("headstart", "tasks", "flows", exclude_type_checking_imports=True, cache_dir=None)


def entries(module: str) -> set[str]:
    """Return the first-level entries of headstart/, files or folders, that a module's imports reach."""
    reached = {name.split(".")[1] for name in GRAPH.find_upstream_modules(module) if name.startswith("headstart.")}
    return {f"headstart/{name}" + ("" if (ROOT / "headstart" / name).is_dir() else ".py") for name in reached}
