"""The launcher of stages as a process among others."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from headstart.base.errors import CheckError
from headstart.layout import Layout
from tasks import __main__ as launcher
from tests.support.processes import started


@pytest.mark.parametrize(
    ("command", "is_dvcs_shell"),
    [("python -m tasks embed", True), ("headstart stage embed", True), ("headstart stage split", False)],
)
def test_dvcs_shell_is_known_by_the_command_that_it_waits_for(
    command: str, is_dvcs_shell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own parent is DVC then, and a stage ends when that is gone."""
    monkeypatch.setenv("DVC_STAGE", "embed")
    script = f"echo; read line; : {command}"
    with started(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        shell.stdout.readline()  # until then the process may still be this one's copy, with its command line
        found = launcher._shell_between(shell.pid)
        assert found == (psutil.Process(shell.pid) if is_dvcs_shell else None)
        shell.communicate(b"\n")


@pytest.mark.parametrize("error", [ImportError("gone", name="onnxscript"), SystemError(), CheckError("broken")])
def test_ctrl_c_is_told_as_such_whatever_a_library_makes_of_it(
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A module whose import is interrupted is said to be missing: `onnxscript is not installed`, said a run."""

    def run(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launcher, "_run", run)
    assert launcher.main(["embed"]) == 130
    assert capsys.readouterr().err == "embed: interrupted; earlier results are unchanged\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("broken", ["null", "5", "[1]", "{", ""])
def test_a_broken_file_of_times_is_replaced(broken: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.timings.parent.mkdir(parents=True)
    layout.timings.write_text(broken)
    launcher._note_time("split", 1.0, layout)
    assert json.loads(layout.timings.read_text()) == {"split": {"seconds": 1.0}}
