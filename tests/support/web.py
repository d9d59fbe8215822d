"""A folder served by `python -m http.server`, as anybody may serve a static site."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

from tests.support.processes import started


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the URL of a folder."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with started(command, cwd=folder, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        found = re.search(r"http://[\d.:]+", process.stdout.readline())
        assert found is not None
        yield found[0]
