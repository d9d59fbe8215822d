"""A shard, one file of the content-addressed store: rows sorted by key, with their contract and digest.

The format is https://github.com/huggingface/safetensors#format, the tensors are `image_ids` uint8 [N, 32] and `values`.
The same rows always give the same bytes, and every flipped bit is detected.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from headstart.base.files import is_local, reaching, write_bytes

_PROMISE = "headstart"  # key of a shard's metadata: what computed it, and the digest of its rows
_KEY_BYTES = 32


@dataclass(frozen=True)
class Contract:
    """The form of a row and what computed it. Rows of another contract are never read."""

    fingerprint: str  # SHA-256 in hexadecimal over all that determines the values, except the image
    row_shape: tuple[int, ...]
    dtype: str  # numpy's name, such as 'uint8' or 'float32'

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return int(np.prod(self.row_shape)) * np.dtype(self.dtype).itemsize


def fingerprint(**ingredients: str) -> str:
    """Return the SHA-256 over named ingredients, such as the digest of a graph."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


class DamagedError(Exception):
    """A shard's bytes have changed since they were written."""


class OtherContractError(Exception):
    """A shard holds rows of another contract."""


class Shard:
    """One verified shard file, memory-mapped if it is local."""

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
            raise DamagedError("its header has changed since it was written") from None
        header = _header(n_rows, made_by, self.digest)
        if raw[:start].tobytes() != header or len(raw) != start + n_rows * (_KEY_BYTES + made_by.row_bytes):
            raise DamagedError("its header or its length has changed since it was written")
        if made_by != contract:
            raise OtherContractError
        keys, values = np.split(raw[start:], [n_rows * _KEY_BYTES])
        if verify and _digest(keys, values) != self.digest:
            raise DamagedError("its bytes have changed since they were written")
        self.values = values.view(made_by.dtype).reshape(n_rows, *made_by.row_shape)
        self._keys = keys.reshape(n_rows, _KEY_BYTES)

    @cached_property
    def image_ids(self) -> list[str]:
        """The sorted keys."""
        return [row.tobytes().hex() for row in self._keys]

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row number of each image."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}


def write(path: Path, ids: list[str], values: np.ndarray, contract: Contract) -> str:
    """Write rows, which must be sorted by key, and return their digest."""
    keys = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8)
    digest = _digest(keys, values)
    write_bytes(path, _header(len(ids), contract, digest), keys, values)
    return digest


def _header(n_rows: int, contract: Contract, digest: str) -> bytes:
    """Return the header; it is built here so that the same content always gives the same header."""
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
    """Return the file's bytes, uint8 [n], memory-mapped if the file is local."""
    if not is_local(path):
        with reaching(path, "read"):
            return np.frombuffer(path.read_bytes(), np.uint8)
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)


def _digest(keys: np.ndarray, values: np.ndarray) -> str:
    """Return XXH3 of a shard's rows: it detects damage at a fiftieth of the cost of a cryptographic digest."""
    digest = xxh3_128(keys.data)
    digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_named_by_digest(folder: Path, ids: list[str], values: np.ndarray, contract: Contract) -> str:
    """Write rows, which must be sorted by key, to the file that their digest names; return its name."""
    keys = np.frombuffer(bytes.fromhex("".join(ids)), np.uint8)
    digest = _digest(keys, values)
    name = f"{digest}.safetensors"
    write_bytes(folder / name, _header(len(ids), contract, digest), keys, values)
    return name


def claimed(path: Path, contract: Contract) -> np.ndarray:
    """Return the keys that a shard claims to hold under `contract`, uint8 [N, 32]: a hint that is not verified."""
    keys = b""
    damage = (ValueError, KeyError, TypeError, OverflowError, MemoryError)
    with contextlib.suppress(OSError), reaching(path, "read"), path.open("rb") as file, contextlib.suppress(*damage):
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        promise = json.loads(header["__metadata__"][_PROMISE])
        if promise["fingerprint"] == contract.fingerprint:
            keys = file.read(promise["n_rows"] * _KEY_BYTES)
    n_rows = len(keys) // _KEY_BYTES
    return np.frombuffer(keys[: n_rows * _KEY_BYTES], np.uint8).reshape(n_rows, _KEY_BYTES)


def claimed_keys(path: Path, contract: Contract) -> set[str]:
    """Return the same as hexadecimal numbers."""
    return {key.tobytes().hex() for key in claimed(path, contract)}
