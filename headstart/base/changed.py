"""Images that are not those that `validate` has seen, although DVC sees no reason to run it again.

DVC notes the images after a stage, and takes what the stage has written for the result of them. `validate` looks twice,
but a file may still change in between. A later stage finds that and notes it here, and the next run looks again.
"""

from __future__ import annotations

from pathlib import Path

from headstart.base.files import write_text

_FILE = "changed.txt"


def note(failed: Path, what: str) -> None:
    """Note in artifacts/failed what a stage has found, in words."""
    write_text(failed / _FILE, f"{what}\n")


def is_noted(failed: Path) -> bool:
    """Return whether `validate` has to run again although DVC sees no reason."""
    return (failed / _FILE).is_file()


def forget(failed: Path) -> None:
    """Remove the note: `validate` has run."""
    (failed / _FILE).unlink(missing_ok=True)
