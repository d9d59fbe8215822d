"""The wheel by itself: installed in a fresh environment, it makes a project, trains, and runs under Prefect."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from headstart.commands import origin
from tests.support.projects import SETTINGS, write_photographs
from tests.support.wheels import bare_environment, built_wheel, installed

ON_PHOTOS = tuple(setting for setting in SETTINGS if not setting.startswith("data.root"))


@pytest.mark.slow
def test_the_wheel_installs_and_trains_without_a_clone(tmp_path: Path) -> None:
    """uv links the packages of its cache, so that the environment of 6 GB costs seconds where the cache has them."""
    commands = installed(built_wheel(tmp_path), tmp_path / "venv", "pipeline")
    environment = bare_environment(commands, tmp_path / "home")
    write_photographs(tmp_path / "photos", 12)

    def run(*command: str, folder: Path = tmp_path / "birds") -> str:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=-1, stderr=-2, text=True)
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert origin.code_sha256()[:12] in run("headstart", "--version", folder=tmp_path)  # nothing was left out
    run("headstart", "new", "birds", "--data", "photos", folder=tmp_path)
    run("headstart", "set", *ON_PHOTOS)
    said = run("make", "run")
    assert re.search(r"held-out images right", said)
    assert "conformance images agree" in run("headstart", "verify", "artifacts/model")
    assert re.search(r"^to run +nothing", run("headstart", "status"), re.MULTILINE)
    lock = (tmp_path / "birds" / "dvc.lock").read_bytes()
    assert "nothing to do" in run("headstart", "flow")
    assert (tmp_path / "birds" / "dvc.lock").read_bytes() == lock
