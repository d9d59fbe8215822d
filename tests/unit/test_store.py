from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import store
from headstart.errors import CheckError

CONTRACT = store.Contract(store.fingerprint(graph="a"), (2, 3), "float32")


def ids(n: int, first: int = 0) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + n)]


def rows_of(image_ids: Sequence[str]) -> np.ndarray:
    return np.stack([np.full((2, 3), int(image_id[:6], 16), np.float32) for image_id in image_ids])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def build(folder: Path, image_ids: Sequence[str], contract: store.Contract = CONTRACT, **options: object) -> list[str]:
    """Build and return the image_ids that had to be computed."""
    computed: list[str] = []

    def compute(wanted: Sequence[str]) -> np.ndarray:
        computed.extend(wanted)
        return rows_of(wanted)

    assert store.build(folder, image_ids, contract, compute, **options) == len(computed)  # type: ignore[arg-type]
    return computed


def test_rows_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    wanted = ids(2000)
    build(tmp_path, wanted)
    random.Random(0).shuffle(wanted)
    assert np.array_equal(store.Store(tmp_path, "embed").read(wanted), rows_of(wanted))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_bytes_follow_from_the_set_of_images_never_from_history(sizes: list[int], chance: random.Random) -> None:
    import tempfile

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


def test_growing_past_a_power_of_two_computes_no_old_row_again(tmp_path: Path) -> None:
    build(tmp_path, ids(store.ROWS_PER_SHARD))
    assert len(build(tmp_path, ids(3 * store.ROWS_PER_SHARD))) == 2 * store.ROWS_PER_SHARD


def test_shards_that_nothing_touched_keep_their_bytes(tmp_path: Path) -> None:
    build(tmp_path, ids(4 * store.ROWS_PER_SHARD))
    before = bytes_of(tmp_path)
    build(tmp_path, ids(4 * store.ROWS_PER_SHARD - 1))
    changed = [name for name, data in bytes_of(tmp_path).items() if before.get(name) != data]
    assert len(changed) == 2  # the manifest, and the shard that lost a row


def test_removed_images_leave_the_store(tmp_path: Path) -> None:
    build(tmp_path, ids(20))
    build(tmp_path, ids(10))
    with pytest.raises(CheckError, match=r"lacks 10 of 10 images .*Run `dvc repro embed`"):
        store.Store(tmp_path, "embed").read(ids(10, first=10))


def test_another_fingerprint_computes_everything(tmp_path: Path) -> None:
    build(tmp_path, ids(50))
    other = store.Contract(store.fingerprint(graph="b"), (2, 3), "float32")
    assert len(build(tmp_path, ids(50), other)) == 50


def test_an_empty_store_reads_nothing(tmp_path: Path) -> None:
    build(tmp_path, [])
    assert store.Store(tmp_path, "embed").read([]).shape == (0, 2, 3)


@pytest.mark.parametrize("damage", ["truncate", "flip a value", "flip a key", "empty", "swap"])
def test_a_damaged_shard_is_named_and_computed_again_and_never_read(tmp_path: Path, damage: str) -> None:
    wanted = ids(3 * store.ROWS_PER_SHARD)
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
        store.Store(tmp_path, "embed").read(wanted)
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
        store.Store(tmp_path, "embed")
    assert build(tmp_path, ids(5)) == []


def test_progress_reaches_the_number_of_images(tmp_path: Path) -> None:
    build(tmp_path, ids(700))
    advanced: list[int] = []

    def compute(wanted: Sequence[str]) -> np.ndarray:
        advanced.append(len(wanted))
        return rows_of(wanted)

    store.build(tmp_path, ids(900), CONTRACT, compute, advanced.append)
    assert sum(advanced) == 900


SLOW_BUILD = """
import sys, time
from pathlib import Path
from headstart import store
from tests.unit.test_store import CONTRACT, ids, rows_of

def slowly(wanted):
    time.sleep(0.1)
    return rows_of(wanted)

print("begun", flush=True)
store.build(Path(sys.argv[1]), ids(8 * store.ROWS_PER_SHARD), CONTRACT, slowly)
"""


@pytest.mark.parametrize("shards_before_the_kill", [0, 1, 3, 7])
def test_a_killed_build_loses_at_most_a_shard_and_ends_in_the_same_bytes(
    tmp_path: Path, shards_before_the_kill: int
) -> None:
    wanted = ids(8 * store.ROWS_PER_SHARD)
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
