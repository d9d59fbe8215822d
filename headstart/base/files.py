"""Reads and writes files. A local file is written under a temporary name, synced, and renamed into place."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from uuid import uuid4

from headstart.base import disk
from headstart.base.errors import CheckError, HeadstartError, ParamError, UnreachableError, on_one_line

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


# What begins a formula in some spreadsheet, also in full width, behind apostrophes that it may have by itself.
_FORMULA = "'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"


class Place(NamedTuple):
    """The location of a store: its manifest in a folder that DVC tracks, its shards there or on shared storage."""

    folder: Path
    shards: Path

    @classmethod
    def of(cls, folder: Path) -> Place:
        """Return the place of a store that is in one folder."""
        return cls(folder, folder)


def located(where: str, relative_to: Path) -> Path:
    """Return the path of a file name, relative to `relative_to` unless absolute, or of a URL, which fsspec reads."""
    scheme, colon, rest = where.partition("://")
    if not colon:
        return relative_to / where
    if scheme in ("file", "local"):
        return Path(rest)
    from upath import UPath

    return cast(Path, UPath(where))


def is_local(path: Path) -> bool:
    """Return whether `path` is a local path and not a URL."""
    return isinstance(path, Path)


def write_bytes(path: Path, *parts: bytes | np.ndarray) -> None:
    """Write the parts as one file: under a temporary name that is then changed, or in one step if `path` is a URL.

    Several processes may write the same file. DiskError if a local disk is full or cannot be written, UnreachableError
    if the server of a URL fails, ParamError if a package for it lacks.
    """
    if is_local(path):
        n_bytes = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)
        with replacing(path, f"{uuid4().hex[:8]}.", n_bytes) as beside, beside.open("wb") as file:
            for part in parts:
                file.write(part if isinstance(part, bytes) else part.data)
    else:
        with reaching(path, "written"):
            path.write_bytes(b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts))


@contextmanager
def reaching(path: Path, what: str) -> Iterator[None]:
    """Raise UnreachableError, if `path` is a URL, for what its server fails with; FileNotFoundError is no failure.

    `what` could not be done to it, such as "read". Each library for a kind of server has errors of its own. ParamError
    where that library lacks.
    """
    try:
        yield
    except (HeadstartError, FileNotFoundError, MemoryError):
        raise
    except ImportError as error:
        raise ParamError(
            f"{path} could not be {what}: {on_one_line(str(error))}. Install that package, or name another place in"
            " cluster.store in params.yaml."
        ) from None
    except Exception as error:
        if is_local(path):
            raise
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise UnreachableError(
            f"{path} could not be {what} ({on_one_line(said)}). What was finished is kept: run the same command again."
            " If it fails again, look at that server, or at cluster.store in params.yaml."
        ) from error


@contextmanager
def replacing(path: Path, tag: str = "", n_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure it is removed.

    DiskError if the disk is full or cannot be written; it names `n_bytes`, the size of what is written, if given.
    """
    beside = path.with_name(f".{path.name}.{tag}partial")
    with disk.explained(path, n_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(path)
        finally:
            with contextlib.suppress(OSError):  # of a disk that has become read-only; what went wrong is told
                beside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it replaces `folder`, on failure `folder` is unchanged.

    On Linux and macOS the two change places in one step, so that there is a whole folder at every moment. DiskError if
    the disk is full or cannot be written.
    """
    beside, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("partial", "old"))
    with disk.explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not folder.exists():  # killed between two renames, where the system cannot exchange
            old.rename(folder)
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        beside.mkdir()
        try:
            yield beside
            if not folder.exists():
                beside.rename(folder)
            elif not _exchanged(beside, folder):
                folder.rename(old)
                beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


def sweep(path: Path) -> None:
    """Remove what a killed process has left half-written in place of a file or folder, `replacing` and the like."""
    for left in (*path.parent.glob(f".{path.name}.partial"), *path.parent.glob(f".{path.name}.*.partial")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                left.unlink()


def _exchanged(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; return whether the system and the file system can."""
    exchange = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    paths = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*paths, exchange) == 0)
        here = -100  # AT_FDCWD
        return bool(libc.renameat2(here, paths[0], here, paths[1], exchange) == 0)
    except (OSError, AttributeError, TypeError):  # another system, or a C library without it
        return False


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` line endings on every system."""
    with replacing(path) as beside:
        beside.write_bytes(text.encode())


def write_json(path: Path, value: object) -> None:
    """Write indented JSON in the order given; ValueError for NaN or infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, table: pl.DataFrame) -> None:
    """Write a CSV file with a header. No text in it is a formula for a spreadsheet: see `guarded`."""
    import polars as pl

    text = pl.col(pl.String)
    with replacing(path) as beside:
        table.with_columns(text.str.replace(f"^({_FORMULA})", "'$1")).write_csv(beside)


def guarded(text: str) -> str:
    """Return a text that a spreadsheet shows as it is: behind an apostrophe where it would begin a formula.

    `read_csv` and `unguarded` take the apostrophe away.
    """
    return f"'{text}" if re.match(_FORMULA, text) else text


def unguarded(text: str) -> str:
    """Return the text that `guarded` was given."""
    return text[1:] if re.match(f"'{_FORMULA}", text) else text


def read_csv(path: Path, stage: str) -> pl.DataFrame:
    """Return the table; CheckError, naming the stage that makes it, if it is missing or broken."""
    import polars as pl

    try:
        table = pl.read_csv(existing(path, stage), infer_schema_length=None)
        return table.with_columns(pl.col(pl.String).str.replace(f"^'({_FORMULA})", "$1"))
    except pl.exceptions.PolarsError as error:
        raise CheckError(f"{path} cannot be read ({error}). Run `dvc repro --force {stage}`.") from None


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as safetensors."""
    import numpy as np
    from safetensors.numpy import save_file

    with replacing(path) as beside:
        beside.touch()  # the library gives a new file no reader but its owner
        mode = beside.stat().st_mode
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, beside)
        beside.chmod(mode)


def bundled_with_scikit_learn(name: str) -> Path:
    """Return the path of a file in scikit-learn's `datasets` folder; CheckError if scikit-learn is not installed."""
    package = importlib.util.find_spec("sklearn")  # an import would take seconds
    if package is None or package.origin is None:
        raise CheckError(f"scikit-learn, which contains {name}, is not installed. Run `make setup`.")
    return Path(package.origin).parent / "datasets" / name


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, sha256: str, stage: str) -> None:
    """Raise CheckError, naming the stage that makes the file, unless the file has this SHA-256."""
    found = sha256_of(existing(path, stage))
    if found != sha256:
        raise CheckError(
            f"{path} has SHA-256 {found[:12]}... The file that {stage} wrote, with SHA-256 {sha256[:12]}.., was"
            f" expected. Run `dvc repro --force {stage}`."
        )


def promised(folder: Path, name: str, digests: Mapping[str, str], stage: str) -> Path:
    """Return a file that a record names; CheckError unless it is named there, with the digest of the file."""
    if name not in digests:
        raise CheckError(f"the record in {folder} does not name {name}. Run `dvc repro --force {stage}`.")
    check_digest(folder / name, digests[name], stage)
    return folder / name


def existing(path: Path, stage: str) -> Path:
    """Return `path`; CheckError, naming the stage that makes it, if the file is missing."""
    if not path.is_file():
        raise CheckError(f"{path} is missing. The stage {stage} makes it. Run `dvc repro {stage}`.")
    return path


def sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file directly in `folder`, by file name."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()}


def are_as_promised(folder: Path, promised: Mapping[str, str]) -> bool:
    """Return whether `folder` holds every promised file with the promised SHA-256."""
    return all((folder / name).is_file() and sha256_of(folder / name) == digest for name, digest in promised.items())
