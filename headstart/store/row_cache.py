"""Rows of images in the cache of this machine: whoever computed them, each is computed once.

A file holds rows that were computed together, as a shard that is named by its digest; see `store.shards`. Files are
never changed, so readers take no lock, several processes may add rows at once, and a killed one leaves whole files.
Small files are put together when there are many. SQLite and LMDB would do the same. Such files are written as fast or
faster, their rows are checked against a digest, and they may lie on a network's disk. Pixels are read more slowly the
first time, and still ten times as fast as a network on a processor takes them; see docs/performance.md.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from headstart.store import shards
from headstart.store.arrays import Advance, Compute, rows_per_shard
from headstart.store.shards import Contract, DamagedError, OtherContractError, Shard
from headstart.store.workers import Workers, each, stoppable

if TYPE_CHECKING:
    from headstart.store.cache import Cache

_OPEN_FILES = 32  # memory maps, which count as open files
_SMALL_FILES = 16  # with fewer than a quarter of the usual rows; more of them are put together
_NOWHERE = -1


class RowCache:
    """The rows of one contract. Safe for threads."""

    def __init__(self, cache: Cache, what: str, contract: Contract) -> None:
        self.contract = contract
        whole = shards.fingerprint(made_by=contract.fingerprint, shape=str(contract.row_shape), dtype=contract.dtype)
        self._cache, self._folder = cache, cache.rows(what, whole)
        self._names: list[str] = []
        self._keys = np.zeros((0, 32), np.uint8)
        self._places = np.zeros((0, 2), np.int64)  # number of the file, row
        self._starts = np.zeros(0, np.uint64)  # the first 8 bytes of each key, sorted
        self._order = np.zeros(0, np.int64)
        self._open: OrderedDict[str, Shard] = OrderedDict()  # the most recently used
        self._verified: set[str] = set()
        self._lock = RLock()

    def refusal(self, n_rows: int) -> str:
        """Return why the cache cannot hold so many of these rows at a time, '' if it can."""
        return self._cache.refusal(n_rows * (self.contract.row_bytes + 32))

    def lacking(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return the part of `wanted`, image_id -> path of its bytes, that is not here."""
        self._look_again()
        places = self._find(list(wanted))
        return {one: where for (one, where), place in zip(wanted.items(), places, strict=True) if place[0] == _NOWHERE}

    def fill(
        self,
        wanted: Mapping[str, str],
        compute: Compute,
        pool: Workers,
        advance: Advance = lambda n: None,
        report: Callable[[str], None] = lambda message: None,
    ) -> int:
        """Compute the rows of `wanted`, image_id -> path of its bytes, that are missing; return their number.

        `compute` is as for `arrays.build`. Its rows are written as they come, so a kill loses those in work at most.
        Rows that cannot be written, as on a full disk, are not kept; `report` tells it once.
        """
        self._put_small_files_together()
        places = self._find(list(wanted))
        for number in np.unique(places[:, 0]):
            if number != _NOWHERE:
                _touch(self._folder / self._names[number])
        missing = [image_id for image_id, place in zip(wanted, places, strict=True) if place[0] == _NOWHERE]
        advance(len(wanted) - len(missing))
        tell, stop = stoppable(advance, pool)
        size = rows_per_shard(self.contract)
        parts = [missing[start : start + size] for start in range(0, len(missing), size)]
        unwritten: list[str] = []

        def write(ids: Sequence[str], values: np.ndarray) -> None:
            if why := self._write(ids, values):
                unwritten.append(why)

        keep = write if pool.in_process else None
        jobs = ((compute, {one: wanted[one] for one in part}, tell, keep) for part in parts)
        with closing(each(pool, _computed, jobs, stop)) as finished:
            for ids, values in finished:
                if values is not None:  # of a worker elsewhere, which does not see this cache
                    write(ids, values)
                    advance(len(ids))
        if unwritten:
            report(f"some rows are not kept in the cache, and computed again where they are read: {unwritten[0]}")
        if missing:
            self._cache.prune()
        return len(missing)

    def read(self, wanted: Mapping[str, str], compute: Callable[[Mapping[str, str]], np.ndarray]) -> np.ndarray:
        """Return [len(wanted), *row_shape] in order. Rows that are not here are computed, and not kept."""
        values = np.empty((len(wanted), *self.contract.row_shape), self.contract.dtype)
        ids = list(wanted)
        left = np.arange(len(ids))
        for is_last in (False, True):  # a second time, for another process may have put files together
            left = self._read_into(values, ids, left)
            if len(left) and not is_last:
                self._look_again()
        if len(left):
            values[left] = compute({ids[row]: wanted[ids[row]] for row in left})
        return values

    def _read_into(self, values: np.ndarray, ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Fill some rows of `values`; return those that were not found."""
        with self._lock:
            places, names = self._find([ids[row] for row in rows]), self._names
        left = [rows[places[:, 0] == _NOWHERE]]
        for number in np.unique(places[:, 0][places[:, 0] != _NOWHERE]):
            here = np.flatnonzero(places[:, 0] == number)
            shard = self._opened(names[number])
            if shard is None:
                left.append(rows[here])
            else:
                values[rows[here]] = shard.values[places[here, 1]]
        return np.sort(np.concatenate(left))

    def _find(self, ids: Sequence[str]) -> np.ndarray:
        """Return the file and the row of each image, int64 [N, 2], -1 where there is none."""
        with self._lock:
            if not self._names:
                self._look_again()
            places = np.full((len(ids), 2), _NOWHERE)
            if len(self._starts) and ids:
                keys = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, 32)
                at = np.searchsorted(self._starts, _starts(keys)).clip(max=len(self._starts) - 1)
                nearest = self._order[at]
                found = (self._keys[nearest] == keys).all(axis=1)
                places[found] = self._places[nearest[found]]
            return places

    def _look_again(self) -> None:
        """Learn which rows there are, by what the files claim to hold."""
        with self._lock:
            names = sorted(path.name for path in self._folder.glob("[!.]*.safetensors"))
            if names == self._names:
                return
            claimed = [shards.claimed(self._folder / name, self.contract) for name in names]
            numbers = np.repeat(np.arange(len(names)), [len(keys) for keys in claimed])
            rows = [np.arange(len(keys)) for keys in claimed]
            self._names = names
            self._keys = np.concatenate([*claimed, np.zeros((0, 32), np.uint8)])
            self._places = np.stack([numbers, np.concatenate([*rows, np.zeros(0, int)])], axis=1).astype(np.int64)
            starts = _starts(self._keys)
            self._order = np.argsort(starts, kind="stable")
            self._starts = starts[self._order]

    def _opened(self, name: str) -> Shard | None:
        """Return a file's rows; None, and the file is removed, if it is damaged."""
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
            path = self._folder / name
            try:
                shard = Shard(path, self.contract, verify=name not in self._verified)
            except (DamagedError, OtherContractError):
                _remove(path)
                return None
            except OSError:  # it is gone, or too many files are open
                return None
            self._verified.add(name)
            self._open[name] = shard
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
            return shard

    def _write(self, ids: Sequence[str], values: np.ndarray) -> str:
        """Write rows as one file, sorted by key; return why that was not possible, '' if it was."""
        order = sorted(range(len(ids)), key=lambda row: ids[row])
        keys, values = [ids[row] for row in order], values[order]
        try:
            try:
                shards.write_named_by_digest(self._folder, keys, values, self.contract)
            except FileNotFoundError:  # somebody removed the cache meanwhile
                shards.write_named_by_digest(self._folder, keys, values, self.contract)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _put_small_files_together(self) -> None:
        """Write the rows of many small files as few larger ones, so that a year of small additions costs nothing."""
        self._look_again()
        size = rows_per_shard(self.contract)
        counts = np.bincount(self._places[:, 0], minlength=len(self._names))
        small = [name for name, count in zip(self._names, counts, strict=True) if count <= size // 4]
        if len(small) <= _SMALL_FILES:
            return
        rows: dict[str, np.ndarray] = {}
        for name in small:
            if shard := self._opened(name):
                rows |= dict(zip(shard.image_ids, shard.values, strict=True))
        written = set()
        with contextlib.suppress(OSError):  # a full disk, or somebody removes the cache: small files are no loss
            for part in _parts(sorted(rows), size):
                values = np.stack([rows[image_id] for image_id in part])
                written.add(shards.write_named_by_digest(self._folder, part, values, self.contract))
            for name in set(small) - written:
                _remove(self._folder / name)
        self._look_again()


def _computed(
    compute: Compute,
    wanted: Mapping[str, str],
    advance: Advance,
    keep: Callable[[Sequence[str], np.ndarray], None] | None,
) -> tuple[list[str], np.ndarray | None]:
    """Compute rows, and keep them or return them."""
    values = compute(wanted, advance)
    if keep is None:
        return list(wanted), values
    keep(list(wanted), values)
    return list(wanted), None


def _starts(keys: np.ndarray) -> np.ndarray:
    """Return the first eight bytes of keys uint8 [N, 32] as numbers, uint64 [N]."""
    return np.ascontiguousarray(keys[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def _parts(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone, or not ours
        os.utime(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # likewise
        path.unlink()
