"""One file of the content-addressed store: rows of some images, sorted by key, with their contract and their digest.

The format is https://github.com/huggingface/safetensors#format, the tensors are `image_ids` uint8 [N, 32] and `values`.
One content has one file: every flipped bit is noticed, and the same rows are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from headstart.base.files import is_local, write_bytes

_PROMISE = "headstart"  # the metadata of a shard: what computed it, and the digest of its rows
_KEY_BYTES = 32


@dataclass(frozen=True)
class Contract:
    """What a row is and what computed it; rows of another contract are never read."""

    fingerprint: str  # SHA-256 in hexadecimal over all that the values follow from, but for the image
    row_shape: tuple[int, ...]
    dtype: str  # numpy's name, such as 'uint8' or 'float32'

    @property
    def row_bytes(self) -> int:
        """How much room a row takes."""
        return int(np.prod(self.row_shape)) * np.dtype(self.dtype).itemsize


def fingerprint(**ingredients: str) -> str:
    """Return the SHA-256 over named ingredients, such as the digest of a graph."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


class DamagedError(Exception):
    """A shard's bytes are not what was written."""


class OtherContractError(Exception):
    """A shard holds rows that something else computed."""


class Shard:
    """One verified shard file, memory-mapped where it is a local one."""

    def __init__(self, path: Path, contract: Contract, verify: bool = True) -> None:
        self.name = path.name
        raw = _mapped(path)
        try:
            start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
            promise = json.loads(json.loads(raw[8:start].tobytes())["__metadata__"][_PROMISE])
            self.digest = str(promise["xxh3_128"])
            n_rows = int(promise["n_rows"])
            made_by = Contract(promise["fingerprint"], tuple(promise["row_shape"]), promise["dtype"])
        except (ValueError, KeyError, TypeError):
            raise DamagedError("its header is not what was written") from None
        header = _header(n_rows, made_by, self.digest)
        if raw[:start].tobytes() != header or len(raw) != start + n_rows * (_KEY_BYTES + made_by.row_bytes):
            raise DamagedError("its header or its length is not what was written")
        if made_by != contract:
            raise OtherContractError
        keys, values = np.split(raw[start:], [n_rows * _KEY_BYTES])
        if verify and _digest(keys, values) != self.digest:
            raise DamagedError("its bytes are not those that were written")
        self.values = values.view(made_by.dtype).reshape(n_rows, *made_by.row_shape)
        self._keys = keys.reshape(n_rows, _KEY_BYTES)

    @cached_property
    def image_ids(self) -> list[str]:
        """The keys, sorted."""
        return [row.tobytes().hex() for row in self._keys]

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where each image's row is."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


def write(path: Path, ids: list[str], values: np.ndarray, contract: Contract) -> str:
    """Write the rows of some images, sorted by key, and return their digest."""
    keys = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8)
    digest = _digest(keys, values)
    write_bytes(path, _header(len(ids), contract, digest), keys, values)
    return digest


def _header(n_rows: int, contract: Contract, digest: str) -> bytes:
    """Return the header, written here so that there is one for one content."""
    promise = {"fingerprint": contract.fingerprint, "xxh3_128": digest, "n_rows": n_rows}
    promise |= {"row_shape": list(contract.row_shape), "dtype": contract.dtype}
    keys_end = n_rows * _KEY_BYTES
    end = keys_end + n_rows * contract.row_bytes
    shape = [n_rows, *contract.row_shape]
    dtype = {"uint8": "U8", "float16": "F16", "float32": "F32"}[contract.dtype]
    header = json.dumps(
        {
            "__metadata__": {_PROMISE: json.dumps(promise, sort_keys=True)},
            "image_ids": {"dtype": "U8", "shape": [n_rows, _KEY_BYTES], "data_offsets": [0, keys_end]},
            "values": {"dtype": dtype, "shape": shape, "data_offsets": [keys_end, end]},
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def _mapped(path: Path) -> np.ndarray:
    """Return the file's bytes, uint8 [n]: as a memory map where it is local."""
    if not is_local(path):
        return np.frombuffer(path.read_bytes(), np.uint8)
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def _digest(keys: np.ndarray, values: np.ndarray) -> str:
    """Return XXH3 of a shard's rows: made to notice damage, at a fiftieth of the cost of a cryptographic digest."""
    digest = xxh3_128(keys.data)
    digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def claimed_keys(path: Path, contract: Contract) -> set[str]:
    """Return the keys that a shard claims to hold under `contract`: a hint, which nothing but the grouping trusts."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            promise = json.loads(header["__metadata__"][_PROMISE])
            keys = file.read(promise["n_rows"] * _KEY_BYTES) if promise["fingerprint"] == contract.fingerprint else b""
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError):
        return set()
    return {keys[start : start + _KEY_BYTES].hex() for start in range(0, len(keys), _KEY_BYTES)}
