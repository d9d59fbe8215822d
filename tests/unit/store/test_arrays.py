from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from safetensors.numpy import load_file

from headstart.base.errors import CheckError
from headstart.base.files import Place, located
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import Workers
from tests.support.stores import CONTRACT, LOCAL, bytes_of, ids, rows_of

ONE_BY_ONE = Workers(ThreadPoolExecutor(1), 1, in_process=True)  # what a kill leaves is then the same each time


def build(
    folder: Path,
    image_ids: Iterable[str],
    contract: Contract = CONTRACT,
    shards: Path | None = None,
    advance: arrays.Advance = lambda n: None,
    report: Callable[[str], None] = lambda message: None,
) -> list[str]:
    """Build and return the image_ids that had to be computed."""
    computed: list[str] = []

    def compute(wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        computed.extend(wanted)
        advance(len(wanted))
        return rows_of(wanted)

    images = {image_id: f"{image_id}.jpg" for image_id in image_ids}
    place = Place(folder, shards or folder)
    assert arrays.build(place, images, contract, compute, LOCAL, advance, report) == len(computed)
    return computed


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    wanted = ids(2000)
    build(tmp_path, wanted)
    random.Random(0).shuffle(wanted)
    assert np.array_equal(arrays.Store(Place.of(tmp_path), "embed").read(wanted), rows_of(wanted))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_bytes_follow_from_the_set_of_images_never_from_history(sizes: list[int], chance: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        grown, fresh = Path(folder) / "grown", Path(folder) / "fresh"
        for size in sizes:
            wanted = ids(size)
            chance.shuffle(wanted)
            build(grown, wanted)
        build(fresh, ids(sizes[-1]))
        assert bytes_of(grown) == bytes_of(fresh)


def test_only_missing_rows_are_computed(tmp_path: Path) -> None:
    build(tmp_path, ids(1000))
    assert sorted(build(tmp_path, ids(1010))) == sorted(ids(10, first=1000))
    assert build(tmp_path, ids(1010)) == []


def test_few_missing_rows_share_calls_and_many_lose_no_more_than_a_shard(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute(wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        calls.append(len(wanted))
        return rows_of(wanted)

    old, new = ids(8 * arrays.ROWS_PER_SHARD), ids(40, first=10_000)
    arrays.build(Place.of(tmp_path), dict.fromkeys(old, ""), CONTRACT, compute, LOCAL)
    assert len(calls) == 8
    calls.clear()
    arrays.build(Place.of(tmp_path), dict.fromkeys(old[:-40] + new, ""), CONTRACT, compute, LOCAL)
    assert calls == [40]


def test_any_reader_of_safetensors_can_read_a_shard(tmp_path: Path) -> None:
    wanted = ids(300)
    build(tmp_path, wanted)
    found = load_file(tmp_path / "shard-000000-of-000001.safetensors")
    assert [row.tobytes().hex() for row in found["image_ids"]] == sorted(wanted)
    assert np.array_equal(found["values"], rows_of(sorted(wanted)))


def test_growing_past_a_power_of_two_computes_no_old_row_again(tmp_path: Path) -> None:
    build(tmp_path, ids(arrays.ROWS_PER_SHARD))
    assert len(build(tmp_path, ids(3 * arrays.ROWS_PER_SHARD))) == 2 * arrays.ROWS_PER_SHARD


def test_shards_that_nothing_touched_keep_their_bytes(tmp_path: Path) -> None:
    build(tmp_path, ids(4 * arrays.ROWS_PER_SHARD))
    before = bytes_of(tmp_path)
    build(tmp_path, ids(4 * arrays.ROWS_PER_SHARD - 1))
    changed = [name for name, data in bytes_of(tmp_path).items() if before.get(name) != data]
    assert len(changed) == 2  # the manifest, and the shard that lost a row


def test_removed_images_leave_the_store(tmp_path: Path) -> None:
    build(tmp_path, ids(20))
    build(tmp_path, ids(10))
    with pytest.raises(CheckError, match=r"lacks 10 of 10 images .*Run `dvc repro embed`"):
        arrays.Store(Place.of(tmp_path), "embed").read(ids(10, first=10))


def test_another_fingerprint_computes_everything(tmp_path: Path) -> None:
    build(tmp_path, ids(50))
    other = Contract(fingerprint(graph="b"), (2, 3), "float32")
    assert len(build(tmp_path, ids(50), other)) == 50


def test_an_empty_store_reads_nothing(tmp_path: Path) -> None:
    build(tmp_path, [])
    assert arrays.Store(Place.of(tmp_path), "embed").read([]).shape == (0, 2, 3)


@pytest.mark.parametrize("damage", ["truncate", "flip a value", "flip a key", "empty", "swap"])
def test_a_damaged_shard_is_named_and_computed_again_and_never_read(tmp_path: Path, damage: str) -> None:
    wanted = ids(3 * arrays.ROWS_PER_SHARD)
    build(tmp_path, wanted)
    before = bytes_of(tmp_path)
    victim, other = sorted(tmp_path.glob("shard-*"))[:2]
    data = bytearray(victim.read_bytes())
    if damage == "truncate":
        del data[-10:]
    elif damage == "flip a value":
        data[-1] ^= 1
    elif damage == "flip a key":
        data[len(data) - len(data) // 2] ^= 1
    elif damage == "empty":
        data.clear()
    elif damage == "swap":
        data = bytearray(other.read_bytes())
    victim.write_bytes(data)
    with pytest.raises(CheckError, match=r"shard-000000-of-000004\.safetensors is damaged"):
        arrays.Store(Place.of(tmp_path), "embed").read(wanted)
    told: list[str] = []
    computed = build(tmp_path, wanted, report=told.append)
    assert bytes_of(tmp_path) == before
    assert 0 < len(computed) < len(wanted)
    if damage != "swap":
        assert told
        assert "shard-000000-of-000004.safetensors is damaged" in told[0]


def test_a_store_without_its_manifest_is_not_finished(tmp_path: Path) -> None:
    build(tmp_path, ids(5))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(CheckError, match="holds no finished store"):
        arrays.Store(Place.of(tmp_path), "embed")
    assert build(tmp_path, ids(5)) == []


def test_progress_reaches_the_number_of_images(tmp_path: Path) -> None:
    build(tmp_path, ids(700))
    advanced: list[int] = []
    build(tmp_path, ids(900), advance=advanced.append)
    assert sum(advanced) == 900


SLOW_BUILD = """
import sys, time
from pathlib import Path
from headstart.base.files import Place
from headstart.store import arrays
from tests.support.stores import CONTRACT, LOCAL, ids, rows_of

def slowly(wanted, advance):
    time.sleep(0.1)
    return rows_of(wanted)

print("begun", flush=True)
arrays.build(Place.of(Path(sys.argv[1])), dict.fromkeys(ids(8 * arrays.ROWS_PER_SHARD), ""), CONTRACT, slowly, LOCAL)
"""


@pytest.mark.parametrize("shards_before_the_kill", [0, 1, 3, 7])
def test_a_killed_build_loses_at_most_a_shard_and_ends_in_the_same_bytes(
    tmp_path: Path, shards_before_the_kill: int
) -> None:
    wanted = ids(8 * arrays.ROWS_PER_SHARD)
    build(tmp_path / "whole", wanted)
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("shard-*"))) < shards_before_the_kill:
        assert time.monotonic() < deadline
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(folder.glob("shard-*")))
    computed = build(folder, wanted)
    assert finished >= shards_before_the_kill
    assert len(computed) <= len(wanted) * (8 - finished) / 8 * 1.2
    assert bytes_of(folder) == bytes_of(tmp_path / "whole")


def test_an_interrupted_build_stops_at_once_and_keeps_what_is_finished(tmp_path: Path) -> None:
    wanted = ids(8 * arrays.ROWS_PER_SHARD)
    begun: list[int] = []

    def compute(images: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        begun.append(len(images))
        if len(begun) == 4:
            raise KeyboardInterrupt
        advance(len(images))
        return rows_of(images)

    with pytest.raises(KeyboardInterrupt):
        arrays.build(Place.of(tmp_path), dict.fromkeys(wanted, ""), CONTRACT, compute, LOCAL)
    assert len(begun) <= 6
    assert not list(tmp_path.glob(".*.partial"))
    with pytest.raises(CheckError, match="holds no finished store"):
        arrays.Store(Place.of(tmp_path), "embed")
    assert len(build(tmp_path, wanted)) <= len(wanted) - 2 * arrays.ROWS_PER_SHARD * 0.8


def test_a_store_of_any_size_keeps_few_shards_open(tmp_path: Path) -> None:
    wanted = ids(16 * arrays.ROWS_PER_SHARD)
    build(tmp_path, wanted)
    opened = arrays.Store(Place.of(tmp_path), "embed")
    assert np.array_equal(opened.read(wanted), rows_of(wanted))
    assert len(opened._open) == arrays._OPEN_SHARDS
    assert np.array_equal(opened.read(wanted[:9]), rows_of(wanted[:9]))


@pytest.mark.parametrize("where", ["memory://bucket/pixels", "elsewhere"])
def test_shards_may_lie_elsewhere_and_the_manifest_stays(tmp_path: Path, where: str) -> None:
    folder, shards = tmp_path / "tracked", located(where, tmp_path)
    wanted = ids(1500)
    build(folder, wanted)
    assert len(build(folder, wanted, shards=shards)) == 1500  # nothing is there yet
    assert [path.name for path in folder.iterdir()] == [arrays.MANIFEST]
    assert len(list(shards.iterdir())) == arrays.n_shards(1500, CONTRACT)
    assert np.array_equal(arrays.Store(Place(folder, shards), "embed").read(wanted[::-1]), rows_of(wanted[::-1]))
    assert build(folder, wanted, shards=shards) == []
    assert len(build(folder, ids(1510), shards=shards)) == 10
    assert len(list(shards.iterdir())) == arrays.n_shards(1510, CONTRACT)
    build(folder, ids(100), shards=shards)
    victim = next(iter(shards.iterdir()))
    victim.write_bytes(victim.read_bytes()[:-3])
    with pytest.raises(CheckError, match="is damaged"):
        arrays.Store(Place(folder, shards), "embed").read(ids(100))
    assert len(build(folder, ids(100), shards=shards)) == 100


class Killed(BaseException):
    pass


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to a store, the next build ends in the bytes of a fresh one, and computes what was missing."""

    def __init__(self) -> None:
        super().__init__()
        self.rows_per_shard, arrays.ROWS_PER_SHARD = arrays.ROWS_PER_SHARD, 4
        self.base = Path(tempfile.mkdtemp())
        self.folder = self.base / "store"
        self.images: dict[str, str] = {}
        self.sound: set[str] = set()  # rows that a finished build has left and nothing damaged since
        self.is_finished = False

    def teardown(self) -> None:
        arrays.ROWS_PER_SHARD = self.rows_per_shard
        shutil.rmtree(self.base)

    @rule(numbers=st.sets(st.integers(0, 60), max_size=30))
    def add(self, numbers: set[int]) -> None:
        self.images |= {image_id: f"{image_id}.jpg" for number in numbers for image_id in ids(1, number)}

    @precondition(lambda self: self.images)
    @rule(chance=st.randoms(use_true_random=False))
    def remove(self, chance: random.Random) -> None:
        for image_id in chance.sample(sorted(self.images), chance.randint(1, len(self.images))):
            del self.images[image_id]

    @rule(suffix=st.sampled_from([".png", ".jpeg"]))
    def rename(self, suffix: str) -> None:
        self.images = {image_id: f"renamed/{image_id}{suffix}" for image_id in self.images}

    @precondition(lambda self: self.images)
    @rule(after=st.integers(0, 5))
    def kill(self, after: int) -> None:
        """Die within the computing of a shard, and leave half a file behind."""
        calls = 0

        def compute(wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls > after:
                raise Killed
            return rows_of(wanted)

        try:
            arrays.build(Place.of(self.folder), self.images, CONTRACT, compute, ONE_BY_ONE)
        except Killed:
            self.folder.mkdir(exist_ok=True)
            (self.folder / ".shard-000000-of-000001.safetensors.0123.partial").write_bytes(b"half")
            self.is_finished = False
        else:
            self.is_finished = True
            self.sound = set(self.images)

    @precondition(lambda self: self.folder.is_dir() and list(self.folder.glob("shard-*")))
    @rule(chance=st.randoms(use_true_random=False), how=st.sampled_from(["flip", "truncate", "empty", "remove"]))
    def corrupt(self, chance: random.Random, how: str) -> None:
        victim = chance.choice(sorted(self.folder.glob("shard-*")))
        data = bytearray(victim.read_bytes())
        if how == "remove":
            victim.unlink()
        elif how == "truncate" or not data:
            victim.write_bytes(data[: chance.randrange(len(data) or 1)])
        elif how == "empty":
            victim.write_bytes(b"")
        else:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            victim.write_bytes(data)
        self.sound = set()  # which rows it held is not kept here

    @rule()
    def build(self) -> None:
        computed = build(self.folder, self.images)
        assert not set(computed) & self.sound
        build(self.base / "fresh", self.images)
        assert bytes_of(self.folder) == bytes_of(self.base / "fresh")
        shutil.rmtree(self.base / "fresh")
        self.is_finished, self.sound = True, set(self.images)

    @invariant()
    def what_can_be_read_is_right(self) -> None:
        if not self.folder.is_dir():
            return
        try:
            found = arrays.Store(Place.of(self.folder), "embed").read(sorted(self.images))
        except CheckError:
            return
        assert np.array_equal(found, rows_of(sorted(self.images)) if self.images else np.empty((0, 2, 3)))


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=15)
TestAnyHistory = AnyHistory.TestCase


@pytest.mark.parametrize(
    ("row_shape", "dtype", "rows"),
    [((2, 3), "float32", 512), ((256, 256, 3), "uint8", 512), ((1370, 1024), "float32", 17), ((10**9,), "float32", 1)],
)
def test_shards_of_large_rows_have_fewer_of_them(row_shape: tuple[int, ...], dtype: str, rows: int) -> None:
    contract = Contract("f", row_shape, dtype)
    assert arrays.rows_per_shard(contract) == rows
    assert arrays.n_shards(rows, contract) == 1
    assert arrays.n_shards(rows + 1, contract) == 2
