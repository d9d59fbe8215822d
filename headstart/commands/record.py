"""headstart.json of a project: the version and the digest of the code that its results come from.

It is the one dependency on code of each stage there, so another version of headstart makes every stage run again. The
repository of headstart itself has no such file: its stages depend on the code itself.
"""

from __future__ import annotations

import json
from pathlib import Path

from headstart.base.errors import CheckError
from headstart.base.files import write_json
from headstart.base.progress import say
from headstart.commands import origin

NAME = "headstart.json"


def write(root: Path) -> None:
    """Record the code that runs here."""
    write_json(root / NAME, _here())


def refresh(root: Path) -> None:
    """Record the code that runs here if it has changed, and say what follows; do nothing without the file."""
    known = _read(root)
    if known is None or known == _here():
        return
    write(root)
    before, now = known.get("version", "unknown"), origin.version()
    changed = f"version {before} made the results, this is {now}" if before != now else "its code has changed"
    say(f"{changed}; every stage runs again, and takes from the cache what is the same ({NAME})")


def check(root: Path) -> None:
    """Raise CheckError if a stage would run with code that headstart.json does not name."""
    known = _read(root)
    if known is not None and known != _here():
        raise CheckError(
            f"{NAME} names headstart {known.get('version', 'unknown')}, code {known.get('code_sha256', '')[:12]}, but"
            f" {origin.version()}, code {origin.code_sha256()[:12]}, is installed. Results would be noted under the"
            " wrong code. Run `headstart run`, which records the installed one, or install the other again."
        )


def is_current(root: Path) -> bool:
    """Return whether the installed code is the recorded one, or none is recorded."""
    return _read(root) in (None, _here())


def _here() -> dict[str, str]:
    return {"version": origin.version(), "code_sha256": origin.code_sha256()}


def _read(root: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads((root / NAME).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        return {}  # a broken file names no code; the next run writes it again
