"""What a killed DVC leaves behind, in a real repository of DVC whose stages take no time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.base.errors import CheckError
from headstart.commands import locks

_STAGES = """
stages:
  first:
    cmd: touch ../begun; sleep {seconds}; echo a > a
    outs: [a]
  second:
    cmd: cat a > b
    deps: [a]
    outs: [b]
"""


def dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},  # else `dvc init` leaves a process behind that sends them
        capture_output=True,
        text=True,
        check=False,
    )


def begun(root: Path, seconds: float = 0) -> Path:
    root.mkdir(parents=True)
    assert dvc(root, "init", "--no-scm", "--quiet").returncode == 0
    (root / ".dvc" / "config").write_text("[core]\nanalytics = false\ncheck_update = false\nno_scm = true\n")
    (root / "dvc.yaml").write_text(_STAGES.format(seconds=seconds))
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = begun(tmp_path_factory.mktemp("dvc") / "project")
    assert dvc(root, "repro").returncode == 0
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["cp", "-a", str(finished), str(tmp_path / "project")], check=True)
    yield tmp_path / "project"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SETTLES_S", 0.0)


def test_an_rwlock_that_a_kill_has_damaged_is_removed_and_dvc_works_again(project: Path) -> None:
    rwlock = project / ".dvc" / "tmp" / "rwlock"
    for left in ("{", '{"write": ', "[]", '{"write": {"a": {}}}', "\0" * 40, ""):
        rwlock.write_text(left)
        if not left:
            assert "corrupted" in dvc(project, "repro", "--force").stderr  # else there is nothing to mend
        (told,) = locks.mend(project)
        assert ".dvc/tmp/rwlock" in told
        assert not rwlock.exists()
    assert dvc(project, "repro", "--force").returncode == 0


@pytest.mark.parametrize("every", [120, pytest.param(10, marks=pytest.mark.slow)])
def test_every_cut_of_dvc_lock_is_mended_or_dvc_reads_it(project: Path, every: int) -> None:
    lock = project / "dvc.lock"
    whole = lock.read_bytes()
    n_mended = 0
    for end in range(len(whole)):
        lock.write_bytes(whole[:end])
        n_mended += len(locks.mend(project))
        if end % every == 0 or (every < 100 and whole[end - 1 : end] == b"\n"):  # a DVC takes half a second
            assert dvc(project, "repro").returncode == 0, whole[:end]
            assert lock.read_bytes() == whole
    assert n_mended > len(whole) / 2
    assert (project / ".dvc" / "tmp" / "dvc.lock.damaged").is_file()


def test_what_is_sound_stays_as_it_is(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    for rwlock in ("{}", '{"write": {}, "read": {}}', '{"read": {"/a": [{"pid": 1, "cmd": "dvc repro"}]}}'):
        (project / ".dvc" / "tmp" / "rwlock").write_text(rwlock)
        assert locks.mend(project) == []
        assert (project / ".dvc" / "tmp" / "rwlock").read_text() == rwlock
    (project / ".dvc" / "tmp" / "rwlock").unlink()
    assert locks.mend(project) == []
    assert (project / "dvc.lock").read_bytes() == before


def test_a_damaged_dvc_lock_is_mended_where_dvc_has_not_run_yet(tmp_path: Path) -> None:
    project = begun(tmp_path / "project")
    shutil.rmtree(project / ".dvc" / "tmp", ignore_errors=True)
    (project / "dvc.lock").write_text("schema: '2")
    assert len(locks.mend(project)) == 1
    assert dvc(project, "repro").returncode == 0


def test_an_rwlock_whose_process_has_another_successor_of_its_number_is_removed(project: Path) -> None:
    rwlock = project / ".dvc" / "tmp" / "rwlock"
    with subprocess.Popen(["sleep", "60"]) as other:
        held = {"write": {str(project / "a"): {"pid": other.pid, "cmd": "dvc repro"}}, "read": {}}
        rwlock.write_text(json.dumps(held))
        assert locks.mend(project) == []  # the process may have written that
        os.utime(rwlock, (time.time() - 60,) * 2)
        assert "busy" in dvc(project, "repro", "--force").stderr  # else there is nothing to mend
        os.utime(rwlock, (time.time() - 60,) * 2)
        (told,) = locks.mend(project)
        assert f"process {other.pid} of `dvc repro`, which was killed" in told
        assert dvc(project, "repro", "--force").returncode == 0
        assert locks.at_work(project) == ""
        other.kill()


def test_a_conflict_of_git_in_dvc_lock_is_left_to_people(project: Path) -> None:
    lock = project / "dvc.lock"
    lock.write_text(f"<<<<<<< HEAD\n{lock.read_text()}=======\n>>>>>>> other\n")
    before = lock.read_bytes()
    assert locks.mend(project) == []
    assert lock.read_bytes() == before


def test_while_a_dvc_runs_nothing_is_mended_and_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = begun(tmp_path / "project", seconds=30)
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            rwlock = project / ".dvc" / "tmp" / "rwlock"
            until = time.monotonic() + 30
            while not (tmp_path / "begun").exists():
                assert time.monotonic() < until
                time.sleep(0.1)
            who = locks.at_work(project)
            assert who.endswith(f"process {process.pid}")
            assert "repro" in who
            rwlock.write_text("")
            monkeypatch.setattr(locks, "_SETTLES_S", 0.3)
            with pytest.raises(CheckError, match=f"still runs: .*process {process.pid}"):
                locks.mend(project)
            assert rwlock.read_text() == ""
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    assert locks.at_work(project) == ""
    assert len(locks.mend(project)) == 1
