"""Disks that are full or read-only, as the kernel has them."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart.base import disk, files
from headstart.base.disk import DiskError
from headstart.base.errors import HeadstartError
from tasks import __main__ as launcher
from tasks import split
from tests.support.images import ROOT

WRITERS = {
    "bytes": lambda path: files.write_bytes(path, b"x" * 3_000_000),
    "array": lambda path: files.write_bytes(path, np.zeros(3_000_000, np.uint8)),
    "json": lambda path: files.write_json(path, ["x" * 3_000_000]),
    "csv": lambda path: files.write_csv(path, pl.DataFrame({"a": ["x" * 3_000_000]})),
    "safetensors": lambda path: files.write_safetensors(path, {"a": np.zeros(3_000_000, np.uint8)}),
    "folder": lambda path: write_folder(path),
}


def write_folder(path: Path) -> None:
    with files.replacing_folder(path) as beside:
        (beside / "a").write_bytes(b"x" * 3_000_000)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_told_with_folder_and_free_space_and_what_was_there_stays(small: Path, kind: str) -> None:
    path = small / "file"
    path.mkdir() if kind == "folder" else path.write_bytes(b"before")
    with pytest.raises(DiskError, match=rf"file cannot be written: no room is left in {small};.* are free\. Make room"):
        WRITERS[kind](path)
    assert [each.name for each in small.iterdir()] == ["file"]
    assert path.is_dir() if kind == "folder" else path.read_bytes() == b"before"


def test_what_is_needed_is_told_where_it_is_known(small: Path) -> None:
    with pytest.raises(DiskError, match=r"3\.0 MB are needed"):
        WRITERS["bytes"](small / "file")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_read_only_disk_is_told(small: Path, kind: str) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(DiskError, match=rf"file cannot be written: {small} is read-only"):
        WRITERS[kind](small / "file")


def test_the_room_is_looked_at_before_the_work(small: Path) -> None:
    disk.check_room(small / "not" / "there", 1_000_000, "a file")
    with pytest.raises(DiskError, match=r"has no room for the features: 5\.0 MB are needed, 2\.1 MB are free"):
        disk.check_room(small / "not" / "there", 5_000_000, "the features")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk.explained(tmp_path / "a"):
        (tmp_path / "none" / "b").read_bytes()
    with pytest.raises(PermissionError) as told, disk.explained(tmp_path / "a"):
        raise PermissionError(13, os.strerror(13), "/elsewhere/image.jpg")  # of an image that is read meanwhile
    assert not isinstance(told.value, HeadstartError)
    with pytest.raises(ValueError, match="x"), disk.explained(tmp_path / "a"):
        raise ValueError("x")


def test_an_error_of_an_open_file_names_the_project_and_one_of_a_library_in_rust_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = disk.of(OSError(5, os.strerror(5)))
    assert told is not None
    expected = f"a file of this project cannot be read or written: {tmp_path} does not work (input/output error)"
    assert str(told).startswith(expected)
    told = disk.of(RuntimeError("No space left on device (os error 28)"))
    assert told is not None
    assert "no room is left in" in str(told)
    assert disk.of(ValueError("x")) is None
    assert disk.of(PermissionError(13, os.strerror(13))) is None


def test_a_stage_tells_of_a_disk_that_does_not_work_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())

    def broken(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(split, "run", broken)
    assert launcher.main(["split"]) == 1
    said = capsys.readouterr().err
    assert "does not work (input/output error)" in said
    assert "Traceback" not in said


def test_a_file_that_may_not_be_read_is_not_said_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "manifest.parquet"
    closed.write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # root may read all
    told = str(disk.of(PermissionError(errno.EACCES, "Permission denied", str(closed))))
    assert told.startswith(f"{closed} cannot be read by this user.")
