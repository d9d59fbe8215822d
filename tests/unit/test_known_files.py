"""A file that has not changed is not opened again, and nobody can tell from the results."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart import known_files, looking, params_file
from headstart.layout import Layout
from headstart.listing import Found
from headstart.params import Params
from tasks import validate
from tests.support.images import ROOT, deep_png, encoded, photograph

Folders = Callable[..., Path]


@pytest.fixture
def data(class_folders: Folders) -> Path:
    """Images of yesterday: what is as new as the look at it is never kept."""
    root = class_folders(ants=4, bees=4)
    (root / "ants" / "bad.jpg").write_bytes(b"no image")
    levels = np.linspace(0, 4095, 1800).astype(np.uint16).reshape(20, 30, 3)
    (root / "bees" / "deep.png").write_bytes(deep_png(levels))
    return root


@pytest.fixture
def params_of(data: Path, tmp_path: Path) -> Params:
    file = tmp_path / "params.yaml"
    file.write_bytes((ROOT / "params.yaml").read_bytes())
    return params_file.assign(
        file, [f"data.root={data}", f"cache.dir={tmp_path / 'cache'}", "validate.max_quarantined_fraction=0.5"]
    )


@pytest.fixture(autouse=True)
def a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock of `validate` run ahead of the file system's, in place of waiting."""
    clock = known_files.clock_ns
    monkeypatch.setattr(looking, "clock_ns", lambda: clock() + 60_000_000_000)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were opened since it was last cleared."""
    paths: list[str] = []
    look = looking.Looking.__call__

    def noted(by: looking.Looking, found: Found, bits: int) -> looking.Looked:
        paths.append(found.path)
        return look(by, found, bits)

    monkeypatch.setattr(looking.Looking, "__call__", noted)
    return paths


def run(params: Params, root: Path, thorough: bool = False) -> dict[str, bytes]:
    """Return every file that the stage writes."""
    values = params.model_copy(update={"validate_": params.validate_.model_copy(update={"thorough": thorough})})
    layout = Layout.of(root, values)
    validate.run(values, layout)
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in layout.artifacts.rglob("*") if path.is_file()
    }


def test_what_has_not_changed_is_not_opened_again_and_the_bytes_are_the_same(
    params_of: Params, data: Path, tmp_path: Path, opened: list[str]
) -> None:
    first = run(params_of, tmp_path / "a")
    assert len(opened) == 11  # the deep file twice: for its bits, then with them
    opened.clear()
    (data / "ants" / "new.png").write_bytes(encoded(photograph(77)))
    (data / "ants" / "new.png").unlink()
    assert run(params_of, tmp_path / "b") == first
    assert opened == ["ants/bad.jpg"]  # what could not be used may have been a passing fault
    opened.clear()
    assert run(params_of, tmp_path / "c", thorough=True) == first
    assert len(opened) == 11


def test_what_is_new_or_changed_is_opened(params_of: Params, data: Path, tmp_path: Path, opened: list[str]) -> None:
    run(params_of, tmp_path / "a")
    opened.clear()
    (data / "ants" / "new.png").write_bytes(encoded(photograph(77)))
    (data / "bees" / "004.png").write_bytes(encoded(photograph(78)))
    (data / "bees" / "005.png").unlink()
    with_known = run(params_of, tmp_path / "b")
    assert sorted(opened) == ["ants/bad.jpg", "ants/new.png", "bees/004.png"]
    assert with_known == run(params_of, tmp_path / "c", thorough=True)


def test_a_change_that_keeps_size_and_time_of_modification_is_seen(
    params_of: Params, data: Path, tmp_path: Path, opened: list[str]
) -> None:
    file = data / "ants" / "000.png"
    before = file.stat()
    run(params_of, tmp_path / "a")
    opened.clear()
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1  # of the checksum of the last chunk
    with file.open("r+b") as same_inode:
        same_inode.write(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_ino, file.stat().st_size) == (before.st_ino, before.st_size)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    run(params_of, tmp_path / "b")
    assert "ants/000.png" in opened


def test_a_file_that_is_as_new_as_the_look_at_it_is_opened_again(
    params_of: Params, data: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git's 'racy' files: written again within one tick of the clock, they would look like those of before."""
    monkeypatch.setattr(looking, "clock_ns", known_files.clock_ns)  # no minute later
    run(params_of, tmp_path / "a")
    opened.clear()
    run(params_of, tmp_path / "b")
    assert len(opened) == 11


def test_a_file_that_changes_while_it_is_read_is_not_kept(data: Path) -> None:
    known, path = known_files.KnownFiles(data), "ants/000.png"
    contents = known_files.Contents("a" * 64, "PNG", 60, 40, 99, None)
    seen = known_files.stamp(path, data)
    (data / path).write_bytes(encoded(photograph(79)))
    known.keep(path, 16, seen, known_files.clock_ns() + 60_000_000_000, contents)
    assert known.now == {}
    known.keep(path, 16, known_files.stamp(path, data), known_files.clock_ns() + 60_000_000_000, contents)
    assert list(known.now) == [(path, 16)]


def test_a_damaged_record_is_none(params_of: Params, tmp_path: Path, opened: list[str]) -> None:
    first = run(params_of, tmp_path / "a")
    (record,) = (tmp_path / "cache").rglob("files.parquet")
    data = bytearray(record.read_bytes())
    data[len(data) // 2] ^= 1
    record.write_bytes(data)
    opened.clear()
    assert run(params_of, tmp_path / "b") == first
    assert len(opened) == 11
    opened.clear()
    run(params_of, tmp_path / "c")
    assert opened == ["ants/bad.jpg"]


def test_other_bits_are_another_look(params_of: Params, tmp_path: Path, opened: list[str]) -> None:
    run(params_of, tmp_path / "a")
    opened.clear()
    other = params_of.model_copy(update={"data": params_of.data.model_copy(update={"bits": 14})})
    run(other, tmp_path / "b")
    assert len(opened) == 10


@pytest.mark.parametrize("rule", ["max_pixels", "max_seconds", "damaged_jpegs"])
def test_under_other_rules_files_are_opened_again(
    params_of: Params, tmp_path: Path, opened: list[str], rule: str
) -> None:
    run(params_of, tmp_path / "a")
    opened.clear()
    section = params_of.validate_.model_copy(update={rule: "accept" if rule == "damaged_jpegs" else 99_999})
    run(params_of.model_copy(update={"validate_": section}), tmp_path / "b")
    assert len(opened) == 11


def test_the_record_counts_as_part_of_the_cache_and_may_be_deleted(params_of: Params, tmp_path: Path) -> None:
    first = run(params_of, tmp_path / "a")
    cache = Layout.of(tmp_path, params_of).cache
    assert [item.what for item in cache.items()] == ["validate"]
    cache.prune(0)
    assert cache.items() == []
    assert run(params_of, tmp_path / "b") == first
