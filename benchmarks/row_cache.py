"""Where rows of images are kept: headstart's files, SQLite, and LMDB if it is installed; the same rows, side by side.

Each writes 512 rows at a time and syncs, then reads all of them in order and 256 at random. `headstart.store.row_cache`
is a folder of shards because of what this says.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import arguments, machine, result, table
from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import workers

PER_WRITE, N_RANDOM = 512, 256
ROWS = {"pixels": ((256, 256, 3), "uint8"), "features": ((1, 2064), "float32")}

Write = Callable[[Sequence[str], np.ndarray], None]
Read = Callable[[Sequence[str]], np.ndarray]


def shards(folder: Path, contract: Contract) -> tuple[Write, Read]:
    """Return headstart's own."""
    rows = RowCache(Cache.of(folder, max_gb=50), "rows", contract)

    def write(ids: Sequence[str], values: np.ndarray) -> None:
        row_of = {image_id: row for row, image_id in enumerate(ids)}
        with workers(None) as pool:
            rows.fill(dict.fromkeys(ids, ""), lambda some, advance: values[[row_of[one] for one in some]], pool)

    def read(ids: Sequence[str]) -> np.ndarray:
        return RowCache(Cache.of(folder, 50), "rows", contract).read(dict.fromkeys(ids, ""), _missing)

    return write, read


def sqlite(folder: Path, contract: Contract) -> tuple[Write, Read]:
    """Return a table of one file, in its fastest safe mode."""
    base = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
    for pragma in ("page_size=65536", "journal_mode=wal", "synchronous=full"):
        base.execute(f"pragma {pragma}")
    base.execute("create table rows (id blob primary key, value blob)")

    def write(ids: Sequence[str], values: np.ndarray) -> None:
        for start in range(0, len(ids), PER_WRITE):
            part = zip(ids[start : start + PER_WRITE], values[start : start + PER_WRITE], strict=True)
            base.execute("begin")
            base.executemany(
                "insert into rows values (?, ?)", [(bytes.fromhex(one), row.tobytes()) for one, row in part]
            )
            base.execute("commit")
        base.execute("pragma wal_checkpoint(truncate)")

    def get(image_id: str) -> bytes:
        return base.execute("select value from rows where id = ?", (bytes.fromhex(image_id),)).fetchone()[0]  # type: ignore[no-any-return]

    return write, lambda ids: _stacked(ids, get, contract)


def lmdb(folder: Path, contract: Contract) -> tuple[Write, Read]:
    """Return a memory-mapped B+ tree; its size has to be known."""
    import lmdb as library

    base: Any = library.open(str(folder / "lmdb"), map_size=2**33)

    def write(ids: Sequence[str], values: np.ndarray) -> None:
        for start in range(0, len(ids), PER_WRITE):
            with base.begin(write=True) as transaction:
                for one, row in zip(ids[start : start + PER_WRITE], values[start : start + PER_WRITE], strict=True):
                    transaction.put(bytes.fromhex(one), row.tobytes())

    def read(ids: Sequence[str]) -> np.ndarray:
        with base.begin(buffers=True) as transaction:
            return _stacked(ids, lambda one: transaction.get(bytes.fromhex(one)), contract)

    return write, read


def _stacked(ids: Sequence[str], get: Callable[[str], bytes], contract: Contract) -> np.ndarray:
    values = np.empty((len(ids), *contract.row_shape), contract.dtype)
    for row, image_id in enumerate(ids):
        values[row] = np.frombuffer(get(image_id), contract.dtype).reshape(contract.row_shape)
    return values


def _missing(wanted: object) -> np.ndarray:
    raise AssertionError("rows are missing")


def measure(what: str, n_rows: int, repeats: int) -> dict[str, list[list[float]]]:
    """Return the seconds to write, to read all and to read some, of each way, in each round."""
    shape, dtype = ROWS[what]
    contract, random = Contract(fingerprint(benchmark=what), shape, dtype), np.random.default_rng(0)
    values = (
        random.integers(0, 256, (n_rows, *shape), np.uint8)
        if dtype == "uint8"
        else random.random((n_rows, *shape), np.float32)
    )
    ids = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(n_rows))
    some = [ids[row] for row in random.permutation(n_rows)[:N_RANDOM]]
    ways = {"shards": shards, "SQLite": sqlite} | ({"LMDB": lmdb} if find_spec("lmdb") else {})
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    for number in range(repeats):  # in turn, since whoever comes first finds memory cold
        for name, way in [*ways.items(), *ways.items()][number % len(ways) :][: len(ways)]:
            with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as folder:
                write, read = way(Path(folder), contract)
                moments = [time.perf_counter()]
                write(ids, values)
                moments.append(time.perf_counter())
                everything = read(ids)
                moments.append(time.perf_counter())
                read(some)
                moments.append(time.perf_counter())
                assert np.array_equal(everything, values)
                found[name].append(list(np.diff(moments)))
    return found


def main() -> None:
    """Measure and print."""
    given = arguments(__doc__, data=False, pixels=2500, features=5000, repeats=3)
    for what, n_rows in (("pixels", given.pixels), ("features", given.features)):
        medians = {name: np.median(rounds, axis=0) for name, rounds in measure(what, n_rows, given.repeats).items()}
        print(f"\n{n_rows} rows of {what}; {machine()}; medians of {given.repeats}")
        table([what, "write", "read all", f"read {N_RANDOM}"], [[n, *map(float, s)] for n, s in medians.items()])
        share = float(medians["shards"][0] / medians["SQLite"][0])
        result(f"row_cache_{what}_write_beside_sqlite", share, "", 1.0, share <= 1.0)


if __name__ == "__main__":
    main()
