"""What the command `headstart` does before and around DVC: mistakes are told in words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.commands import origin
from headstart.commands.main import main
from tests.support.images import ROOT
from tests.support.projects import write_photographs


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that make a folder a project, with images and the report of an earlier run."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/report.html").write_text("")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    write_photographs(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["dvc.lock", "dvc.yaml"])
def test_a_merge_conflict_in_a_file_of_dvc_is_told_by_dvc(
    name: str, project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / name).write_text("<<<<<<< HEAD\nstages:\n=======\n")
    assert main(["run", "--data", "photos"]) > 0
    assert "ERROR" in capfd.readouterr().err


def test_a_package_that_only_the_pipeline_needs_is_named(
    project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "tasks.__main__", raising=False)
    monkeypatch.setitem(sys.modules, "psutil", None)  # as if it was not installed
    assert main(["set"]) == 1
    assert "psutil is not installed, and `headstart set` needs it. Run `pip install" in capfd.readouterr().err


@pytest.mark.parametrize("size", ["ten", "inf", "nan", "-1"])
def test_a_size_that_is_none_is_refused(size: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["cache", f"--prune={size}"])
    assert f"'{size}' is not a number of gigabytes" in capfd.readouterr().err


def test_bytecode_that_another_process_is_about_to_write_is_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("headstart/__init__.py", "tasks/split.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    monkeypatch.setattr(origin, "PACKAGE", tmp_path / "headstart")
    before = origin.code_sha256()
    for folder in ("headstart", "tasks"):
        (tmp_path / folder / "__pycache__").mkdir()
        (tmp_path / folder / "__pycache__/split.cpython-311.pyc.140221").write_bytes(b"half")
    assert origin.code_sha256() == before
    (tmp_path / "tasks/split.py").write_text("1")
    assert origin.code_sha256() != before
