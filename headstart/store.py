"""The content-addressed array store: one row an image, keyed by the SHA-256 of the image's bytes.

A folder of shards and a manifest. A shard holds the rows whose keys share their leading bits, sorted by key, as one
safetensors file. Which shards there are, and every byte in them, is a pure function of (set of keys, fingerprint of
what computed the values), never of history: so a rerun after `kill -9` ends in the same bytes, and shards that nothing
touched keep theirs. Every shard carries its own fingerprint and digest, so rows can be trusted without the manifest,
which is written last: its presence means that the build completed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np

from headstart.errors import CheckError, count_and_name
from headstart.files import replacing, write_json

ROWS_PER_SHARD = 512  # at most this many on average: 100 MB of 256 px pixels, the most that a kill loses
_MANIFEST = "manifest.json"
_HEADER = "headstart"  # the one metadata key of a shard; safetensors does not keep the order of several
_SHARD_NAME = re.compile(r"shard-([0-9]{6})-of-([0-9]{6})\.safetensors")

Compute = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Contract:
    """What a row is and what computed it; rows of another contract are never read."""

    fingerprint: str  # SHA-256 in hexadecimal over all that the values follow from, but for the image
    row_shape: tuple[int, ...]
    dtype: str  # numpy's name, such as 'uint8' or 'float32'


def fingerprint(**ingredients: str) -> str:
    """Return the SHA-256 over named ingredients, such as the digest of a graph."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def n_shards(n_rows: int) -> int:
    """Return the number of shards: the least power of two that keeps them at `ROWS_PER_SHARD` rows on average."""
    return 1 << max(0, (max(n_rows, 1) - 1) // ROWS_PER_SHARD).bit_length()


def build(
    folder: Path,
    image_ids: Iterable[str],
    contract: Contract,
    compute: Compute,
    advance: Callable[[int], None] = lambda n: None,
    report: Callable[[str], None] = lambda message: None,
) -> int:
    """Make the store hold exactly `image_ids`; return how many rows were computed.

    `compute(ids)` returns [len(ids), *row_shape] and is called for missing rows only, one shard at a time. Rows of a
    damaged shard are computed again, and `report` names it. `advance` is told of rows that were already there.
    """
    wanted = sorted(set(image_ids))
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.partial"):
        leftover.unlink()
    earlier = _Earlier(folder, contract, report)
    total, n_computed, digests = n_shards(len(wanted)), 0, {}
    for index, ids in enumerate(_partition(wanted, total)):
        name = f"shard-{index:06d}-of-{total:06d}.safetensors"
        same = earlier.shard(index, total)
        if same is not None and same.image_ids == ids:
            digests[name] = same.digest
            advance(len(ids))
            continue
        values = np.empty((len(ids), *contract.row_shape), contract.dtype)
        missing = earlier.fill(ids, index, total, values)
        advance(len(ids) - len(missing))
        if missing:
            values[missing] = compute([ids[row] for row in missing])
            n_computed += len(missing)
        digests[name] = _write_shard(folder / name, ids, values, contract)
    write_json(
        folder / _MANIFEST,
        {
            "fingerprint": contract.fingerprint,
            "dtype": contract.dtype,
            "row_shape": list(contract.row_shape),
            "n_rows": len(wanted),
            "shards": digests,
        },
    )
    for path in folder.iterdir():
        if path.name not in digests and path.name != _MANIFEST:
            path.unlink()
    return n_computed


class Store:
    """A finished store, read through memory maps. Every shard is verified once, when first touched."""

    def __init__(self, folder: Path, made_by: str) -> None:
        """Open the store; CheckError if it is missing or its build did not complete."""
        self._folder, self._made_by = folder, made_by
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            self.contract = Contract(manifest["fingerprint"], tuple(manifest["row_shape"]), manifest["dtype"])
            self._digests: dict[str, str] = manifest["shards"]
        except (OSError, ValueError, KeyError):
            raise CheckError(f"{folder} holds no finished store. Run `dvc repro {made_by}`.") from None
        self._open: dict[int, _Shard] = {}
        self._lock = Lock()

    def read(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return [len(image_ids), *row_shape] in the order asked for; CheckError if any is missing."""
        values = np.empty((len(image_ids), *self.contract.row_shape), self.contract.dtype)
        by_shard: dict[int, list[int]] = {}
        for row, image_id in enumerate(image_ids):
            by_shard.setdefault(_shard_of(image_id, len(self._digests)), []).append(row)
        missing = []
        for index, rows in sorted(by_shard.items()):
            shard = self._shard(index)
            for row in rows:
                at = shard.rows.get(image_ids[row])
                if at is None:
                    missing.append(f"{image_ids[row][:12]}..")
                else:
                    values[row] = shard.values[at]
        if missing:
            raise CheckError(
                f"{self._folder.name} lacks {len(missing)} of {len(image_ids)} images ({count_and_name(missing)})."
                f" Run `dvc repro {self._made_by}`."
            )
        return values

    def _shard(self, index: int) -> _Shard:
        with self._lock:  # threads that read the same shard first verify it once
            if index not in self._open:
                self._open[index] = self._verified(index)
            return self._open[index]

    def _verified(self, index: int) -> _Shard:
        total = len(self._digests)
        name = f"shard-{index:06d}-of-{total:06d}.safetensors"
        try:
            shard = _Shard(self._folder / name, self.contract)
            if shard.digest != self._digests[name]:
                raise _DamagedError("it is not the shard that the manifest names")
        except (_DamagedError, OSError, KeyError) as error:
            raise CheckError(
                f"{self._folder / name} is damaged: {error}. Run `dvc repro --force {self._made_by}`."
            ) from None
        return shard


class _DamagedError(Exception):
    """A shard's bytes are not what was written."""


class _OtherContractError(Exception):
    """A shard holds rows that something else computed."""


class _Shard:
    """One verified shard file, memory-mapped."""

    def __init__(self, path: Path, contract: Contract) -> None:
        raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        try:
            header_end = 8 + int.from_bytes(raw[:8].tobytes(), "little")
            header = json.loads(raw[8:header_end].tobytes())
            promise = json.loads(header["__metadata__"][_HEADER])
            ids = _tensor(raw, header_end, header["image_ids"])
            self.values = _tensor(raw, header_end, header["values"])
        except (ValueError, KeyError, TypeError):
            raise _DamagedError("its header or its end is missing") from None
        if (promise["fingerprint"], self.values.shape[1:], self.values.dtype) != (
            contract.fingerprint,
            contract.row_shape,
            np.dtype(contract.dtype),
        ):
            raise _OtherContractError
        self.digest: str = promise["sha256"]
        if _digest(ids, self.values) != self.digest:
            raise _DamagedError("its bytes are not those that were written")
        self.image_ids = [row.tobytes().hex() for row in ids]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each image's row is."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


class _Earlier:
    """Whatever an earlier build left in the folder, finished or not, under this or another number of shards."""

    def __init__(self, folder: Path, contract: Contract, report: Callable[[str], None]) -> None:
        self._folder, self._contract, self._report = folder, contract, report
        self._names = {
            (int(match[1]), int(match[2])): match[0]
            for path in folder.iterdir()
            if (match := _SHARD_NAME.fullmatch(path.name))
        }
        self._open: dict[tuple[int, int], _Shard | None] = {}

    def shard(self, index: int, total: int) -> _Shard | None:
        """Return the sound shard of that name and contract, if there is one."""
        place = (index, total)
        if place not in self._names:
            return None
        if place not in self._open:
            try:
                self._open[place] = _Shard(self._folder / self._names[place], self._contract)
            except _OtherContractError:
                self._open[place] = None
            except _DamagedError as damage:
                self._report(f"{self._folder.name}/{self._names[place]} is damaged ({damage}) and is computed again")
                self._open[place] = None
        return self._open[place]

    def fill(self, ids: list[str], index: int, total: int, values: np.ndarray) -> list[int]:
        """Copy the rows that are already there into `values`; return the row numbers that are not."""
        missing = list(range(len(ids)))
        for other_total in sorted({place[1] for place in self._names}):
            first, last = index * other_total // total, ((index + 1) * other_total - 1) // total
            for other_index in range(first, last + 1):
                shard = self.shard(other_index, other_total)
                if shard is None:
                    continue
                for row in missing:
                    if (at := shard.rows.get(ids[row])) is not None:
                        values[row] = shard.values[at]
                missing = [row for row in missing if ids[row] not in shard.rows]
        return missing


def _shard_of(image_id: str, total: int) -> int:
    return int(image_id[:8], 16) * total >> 32


def _partition(sorted_ids: list[str], total: int) -> Iterator[list[str]]:
    start = 0
    for index in range(total):
        end = start
        while end < len(sorted_ids) and _shard_of(sorted_ids[end], total) == index:
            end += 1
        yield sorted_ids[start:end]
        start = end


def _write_shard(path: Path, ids: list[str], values: np.ndarray, contract: Contract) -> str:
    from safetensors.numpy import save_file

    keys = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(len(ids), 32)
    digest = _digest(keys, values)
    promise = json.dumps({"fingerprint": contract.fingerprint, "sha256": digest}, sort_keys=True)
    with replacing(path) as beside:
        save_file({"image_ids": keys, "values": values}, beside, metadata={_HEADER: promise})
    return digest


def _tensor(raw: np.ndarray, data_start: int, entry: dict[str, object]) -> np.ndarray:
    dtype = {"U8": "uint8", "F16": "float16", "F32": "float32"}[str(entry["dtype"])]
    begin, end = entry["data_offsets"]  # type: ignore[misc]
    return raw[data_start + begin : data_start + end].view(dtype).reshape(entry["shape"])  # type: ignore[no-any-return,has-type,call-overload]


def _digest(ids: np.ndarray, values: np.ndarray) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(ids).data)
    digest.update(np.ascontiguousarray(values).data if values.size else b"")
    return digest.hexdigest()
