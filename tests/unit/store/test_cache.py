"""The machine's cache: what is in it, what goes first, and what several processes may do to it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.base import files as base_files
from headstart.store import cache as cache_module
from headstart.store import row_cache, shards
from headstart.store.arrays import Advance
from headstart.store.cache import Cache, default_folder
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import Workers
from tests.support.stores import CONTRACT, LOCAL, ids, rows_of

ELSEWHERE = Workers(ThreadPoolExecutor(1), 1, in_process=False)  # as a worker that does not see the cache


def wanted(n: int, first: int = 0) -> dict[str, str]:
    return {image_id: f"{image_id}.jpg" for image_id in ids(n, first)}


def compute(images: Mapping[str, str], advance: Advance) -> np.ndarray:
    advance(len(images))
    return rows_of(images)


def never(images: Mapping[str, str]) -> np.ndarray:
    raise AssertionError(f"{len(images)} rows are missing")


def opened(folder: Path, max_gb: float = 1.0, contract: Contract = CONTRACT) -> RowCache:
    return RowCache(Cache.of(folder, max_gb), "features", contract)


@pytest.mark.parametrize("pool", [LOCAL, ELSEWHERE], ids=["here", "elsewhere"])
def test_a_row_is_computed_once_and_read_in_the_order_asked_for(tmp_path: Path, pool: Workers) -> None:
    counted: list[int] = []
    assert opened(tmp_path).fill(wanted(20), compute, pool, counted.append) == 20
    assert opened(tmp_path).fill(wanted(30), compute, pool, counted.append) == 10
    assert sum(counted) == 50
    some = dict(reversed(wanted(30).items()))
    assert np.array_equal(opened(tmp_path).read(some, never), rows_of(some))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=6), st.integers(0, 50))
def test_whatever_was_added_before_rows_are_right(
    tmp_path_factory: pytest.TempPathFactory, added: list[tuple[int, int]], n: int
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    known: set[str] = set()
    for first, count in added:
        part = wanted(count, first)
        assert opened(folder).fill(part, compute, LOCAL) == len(set(part) - known)
        known |= set(part)
    rows = opened(folder)
    assert (
        np.array_equal(rows.read(wanted(n), lambda lost: rows_of(lost)), rows_of(wanted(n)).reshape(n, 2, 3))
        if n
        else True
    )
    assert rows.fill(wanted(n), compute, LOCAL) == len(set(wanted(n)) - known)


@pytest.mark.parametrize(
    "other",
    [
        Contract(fingerprint(graph="b"), (2, 3), "float32"),
        Contract(CONTRACT.fingerprint, (2, 3), "float16"),
        Contract(CONTRACT.fingerprint, (3, 2), "float32"),
    ],
)
def test_rows_of_another_contract_are_neither_read_nor_removed(tmp_path: Path, other: Contract) -> None:
    opened(tmp_path).fill(wanted(5), compute, LOCAL)

    def reshaped(images: Mapping[str, str], advance: Advance) -> np.ndarray:
        return (compute(images, advance) % 1000).reshape(-1, *other.row_shape).astype(other.dtype)

    assert opened(tmp_path, contract=other).fill(wanted(5), reshaped, LOCAL) == 5
    assert opened(tmp_path).fill(wanted(5), compute, LOCAL) == 0
    assert np.array_equal(opened(tmp_path).read(wanted(5), never), rows_of(wanted(5)))


def test_rows_that_are_not_there_are_computed_where_they_are_read_and_not_kept(tmp_path: Path) -> None:
    rows = opened(tmp_path)
    rows.fill(wanted(5), compute, LOCAL)
    lost: list[str] = []

    def note(images: Mapping[str, str]) -> np.ndarray:
        lost.extend(images)
        return rows_of(images)

    assert np.array_equal(rows.read(wanted(8), note), rows_of(wanted(8)))
    assert set(lost) == set(wanted(3, first=5))
    assert rows.fill(wanted(8), compute, LOCAL) == 3


def test_files_that_another_process_puts_together_or_removes_are_no_loss(tmp_path: Path) -> None:
    reader = opened(tmp_path)
    for number in range(17):
        opened(tmp_path).fill(wanted(1, first=number), compute, LOCAL)
    assert np.array_equal(reader.read(wanted(17), never), rows_of(wanted(17)))
    assert len(files(tmp_path)) == 17
    assert opened(tmp_path).fill(wanted(21), compute, LOCAL) == 4  # puts the small files together
    assert len(files(tmp_path)) == 2
    fresh = opened(tmp_path)
    fresh.read(wanted(3), never)
    assert np.array_equal(reader.read(wanted(21), never), rows_of(wanted(21)))
    for path in files(tmp_path):
        path.unlink()
    assert np.array_equal(fresh.read(wanted(30), rows_of), rows_of(wanted(30)))


def test_two_processes_that_add_the_same_rows_leave_one_file(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rows: rows.fill(wanted(50), compute, LOCAL), (one, other)))
    assert len(files(tmp_path)) == 1
    assert np.array_equal(opened(tmp_path).read(wanted(50), never), rows_of(wanted(50)))


def test_a_damaged_file_is_removed_and_its_rows_are_computed(tmp_path: Path) -> None:
    opened(tmp_path).fill(wanted(5), compute, LOCAL)
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert np.array_equal(opened(tmp_path).read(wanted(5), rows_of), rows_of(wanted(5)))
    assert files(tmp_path) == []


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    row = CONTRACT.row_bytes + 32
    for number, age_s in enumerate((300, 200, 100)):
        rows = opened(tmp_path)
        before = set(files(tmp_path))
        rows.fill(wanted(100, first=100 * number), compute, LOCAL)
        (new,) = set(files(tmp_path)) - before
        aged(new, age_s)
    opened(tmp_path).fill(wanted(100), compute, LOCAL)  # the oldest is used again
    cache = Cache.of(tmp_path, 1.0)
    sizes = [item.n_bytes for item in cache.items()]
    assert cache.prune(max_bytes=sum(sizes) - 1) == sizes[0]
    assert opened(tmp_path).fill(wanted(100, first=200), compute, LOCAL) == 0
    assert opened(tmp_path).fill(wanted(100), compute, LOCAL) == 0
    assert opened(tmp_path).fill(wanted(100, first=100), compute, LOCAL) == 100
    assert cache.prune(max_bytes=0) > 300 * row
    assert cache.items() == []


def test_filling_keeps_to_the_largest_size(tmp_path: Path) -> None:
    size = 200 * (CONTRACT.row_bytes + 32)
    for number in range(5):
        rows = opened(tmp_path, max_gb=size / 1e9)
        assert rows.refusal(150) == ""
        assert "more than cache.max_gb or the disk allows" in rows.refusal(201)
        rows.fill(wanted(100, first=100 * number), compute, LOCAL)
        assert sum(path.stat().st_size for path in files(tmp_path)) <= size + 2048


def test_a_nearly_full_disk_leaves_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = cache_module.shutil._ntuple_diskusage  # type: ignore[attr-defined]
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: usage(1000, 890, 110))
    assert Cache.of(tmp_path, 1.0).refusal(10) == ""
    assert Cache.of(tmp_path, 1.0).refusal(11)


def test_a_folder_that_cannot_be_made_or_written_is_no_place_to_keep_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache.of(tmp_path / "file" / "below", 1.0)
    assert "cannot be made (Not a directory); cache.dir names another folder" in cache.refusal(1)
    assert not cache.take("train_head", "f" * 64, tmp_path / "taken", lambda folder: True)
    (tmp_path / "made").mkdir()
    cache.put("train_head", "f" * 64, tmp_path / "made")
    rows = RowCache(cache, "features", CONTRACT)
    assert np.array_equal(rows.read(wanted(3), rows_of), rows_of(wanted(3)))
    monkeypatch.setattr(cache_module.os, "access", lambda path, mode: False)  # root may write everywhere
    assert "cannot be written" in Cache.of(tmp_path, 1.0).refusal(1)


def test_a_result_is_taken_as_it_was_put_and_only_if_it_is_sound(tmp_path: Path) -> None:
    cache, made = Cache.of(tmp_path / "cache", 1.0), tmp_path / "made"
    made.mkdir()
    (made / "head.onnx").write_bytes(b"a graph")
    assert not cache.take("train_head", "f" * 64, tmp_path / "taken", lambda folder: True)
    cache.put("train_head", "f" * 64, made)
    cache.put("train_head", "f" * 64, made)
    assert not cache.take("train_head", "e" * 64, tmp_path / "taken", lambda folder: True)
    assert not cache.take("train_head", "f" * 64, tmp_path / "taken", lambda folder: False)
    assert not (tmp_path / "taken").exists()
    assert cache.take("train_head", "f" * 64, tmp_path / "taken", lambda folder: (folder / "head.onnx").is_file())
    assert (tmp_path / "taken/head.onnx").read_bytes() == b"a graph"
    assert [item.what for item in cache.items()] == ["train_head"]


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path: Path) -> None:
    cache = Cache.of(tmp_path, 1.0)
    opened(tmp_path).fill(wanted(5), compute, LOCAL)
    left = [files(tmp_path)[0].with_name(f".{number}.partial") for number in range(2)]
    for path in left:
        path.write_bytes(b"half")
    aged(left[0], 100_000)
    cache.prune()
    assert [path.exists() for path in left] == [False, True]
    assert len(cache.items()) == 1


def test_the_folder_is_a_users_cache_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "named"))
    assert default_folder() == tmp_path / "named"
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "headstart"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "headstart"


def test_a_user_without_a_home_has_a_folder_that_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("HEADSTART_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert default_folder() == Path("/.cache/headstart")


def test_the_cache_may_be_deleted_while_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = base_files.Path.replace
    n_deleted = 0

    def delete_first(beside: Path, path: Path) -> Path:
        nonlocal n_deleted
        if n_deleted == 0:
            n_deleted += 1
            shutil.rmtree(tmp_path / "cache")
        return written(beside, path)

    monkeypatch.setattr(base_files.Path, "replace", delete_first)
    said: list[str] = []
    assert opened(tmp_path / "cache").fill(wanted(5), compute, LOCAL, report=said.append) == 5
    assert n_deleted == 1
    assert said == []
    assert np.array_equal(opened(tmp_path / "cache").read(wanted(5), never), rows_of(wanted(5)))


@pytest.mark.parametrize("pool", [LOCAL, ELSEWHERE], ids=["here", "elsewhere"])
def test_a_disk_that_fills_up_meanwhile_costs_rows_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Workers
) -> None:
    for number in range(17):  # small files, which the next fill would put together
        opened(tmp_path).fill(wanted(1, first=number), compute, LOCAL)

    def full(path: Path, *parts: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_bytes", full)
    said: list[str] = []
    rows = opened(tmp_path)
    assert rows.fill(wanted(1200), compute, pool, report=said.append) == 1183
    assert len(said) == 1
    assert said[0].endswith("computed again where they are read: No space left on device")
    assert len(files(tmp_path)) == 17
    assert np.array_equal(rows.read(wanted(30), rows_of), rows_of(wanted(30)))


def test_only_a_damaged_file_is_removed_not_one_that_cannot_be_opened_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).fill(wanted(5), compute, LOCAL)

    def too_many(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(row_cache, "Shard", too_many)
        assert np.array_equal(opened(tmp_path).read(wanted(5), rows_of), rows_of(wanted(5)))
    assert np.array_equal(opened(tmp_path).read(wanted(5), never), rows_of(wanted(5)))


def test_what_belongs_to_another_user_is_neither_removed_nor_counted_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path).fill(wanted(5), compute, LOCAL)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)  # root may remove everything
    assert Cache.of(tmp_path, 1.0).prune(0) == 0


def test_a_result_that_is_pruned_once_it_is_copied_counts_as_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, made = Cache.of(tmp_path / "cache", 1.0), tmp_path / "made"
    made.mkdir()
    (made / "head.onnx").write_bytes(b"a graph")
    cache.put("train_head", "f" * 64, made)

    def sound_then_gone(folder: Path) -> bool:
        shutil.rmtree(tmp_path / "cache")
        return True

    assert cache.take("train_head", "f" * 64, tmp_path / "taken", sound_then_gone)
    assert (tmp_path / "taken/head.onnx").read_bytes() == b"a graph"


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("rows/*/[!.]*"))


def aged(path: Path, age_s: float) -> None:
    then = path.stat().st_mtime - age_s
    os.utime(path, (then, then))
