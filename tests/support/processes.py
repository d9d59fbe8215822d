"""Programs that a test starts. None outlives it, or keeps it waiting after it has failed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a program as `subprocess.Popen` does, and kill it at the end.

    `with Popen(...)` alone waits for the program to end, for ever if an assertion has failed before it was told to.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()
