"""Output that nobody reads, or that has no room: an end without a traceback, and words about the output."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import ROOT

TASKS = [sys.executable, "-m", "tasks"]
_SAYS = """
import sys
from pathlib import Path
from headstart.base import disk, exits, progress
def run():
    with disk.explained(Path.cwd() / "a"):
        progress.say("a")
    return 0
sys.exit(exits.status_of("a", run))
"""
SAYING = [sys.executable, "-c", _SAYS]  # as a stage that is writing a file
HEADSTART = [sys.executable, "-m", "headstart"]


def shell(command: list[str], rest: str) -> subprocess.CompletedProcess[str]:
    line = f"{shlex.join(command)} {rest}"
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("command", [[*HEADSTART, "--help"], [*HEADSTART, "--version"], TASKS, SAYING])
def test_output_without_room_is_told_as_such(command: list[str]) -> None:
    done = shell(command, "> /dev/full")
    assert done.returncode == 1
    assert "the output cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[*TASKS, "--help"], TASKS])
def test_output_that_nobody_reads_is_no_traceback(command: list[str]) -> None:
    done = shell(command, "| true")
    assert "Traceback" not in done.stderr
    assert "BrokenPipeError" not in done.stderr
