"""Disks that are full, read-only or broken: said in a line, and where sizes are known, before the work begins."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import CheckError, OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
_WORDS = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written by this user",
    errno.EPERM: "may not be written by this user",
    errno.EIO: "does not work (input/output error)",
    errno.EFBIG: "takes no file of this size",
}
_IN_RUST = re.compile(r"\(os error (\d+)\)")  # how libraries in Rust end the message of a failed system call
_SPARE = 0.01  # more than is known to be needed, for what is written beside it


class DiskError(CheckError, OSError):
    """A folder that cannot be written. Also an OSError, for what can do without the file, such as a cache."""


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Raise DiskError unless so much can be written to a local folder, which need not be there yet."""
    there = _existing(folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return  # the writing itself will tell
    if n_bytes * (1 + _SPARE) > free:
        raise DiskError(
            f"{folder} has no room for {what}: {told(n_bytes)} are needed, {told(free)} are free. Make room on that"
            " disk, and run this again: what was finished is kept."
        )


@contextlib.contextmanager
def explained(path: Path, n_bytes: int | None = None) -> Iterator[None]:
    """Turn errors of a disk in the body, which writes `path`, into DiskError. `n_bytes`: the size of what it writes."""
    try:
        yield
    except (DiskError, OutputError):
        raise
    except Exception as error:  # OSError, or that of a library in Rust
        number = cause(error)
        if number is None or not (number in _FULL or _is_about(error, path)):
            raise
        raise DiskError(_sentence(number, path, n_bytes)) from error


def cause(error: BaseException) -> int | None:
    """Return the number of a system error that a disk gives for writing; None for any other error."""
    found = _IN_RUST.search(str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    return number if number in (*_FULL, *_WORDS) else None


def _is_about(error: Exception, path: Path) -> bool:
    """Return whether an error names no other file than `path` or one beside or below it."""
    name = getattr(error, "filename", None)
    return name is None or Path(str(name)).absolute().is_relative_to(path.parent.absolute())


def of(error: BaseException) -> DiskError | None:
    """Return what to tell about an error that has reached the launcher; None if it is not one of a disk.

    An error of reading or writing an open file names none: it is told of the current folder, where a project is.
    """
    number, name = cause(error), getattr(error, "filename", None)
    is_known = name is not None or number in (*_FULL, errno.EIO, errno.EROFS)
    if number is None or not is_known or isinstance(error, OutputError):
        return None
    return DiskError(_sentence(number, Path(str(name)) if name else Path.cwd() / "a file of this project", None))


def told(n_bytes: float) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def _sentence(number: int, path: Path, n_bytes: int | None) -> str:
    folder = _existing(path.parent)
    if number in _CLOSED and path.exists() and not os.access(path, os.R_OK):
        return f"{path} cannot be read by this user. Allow it, and run this again: what was finished is kept."
    if number not in _FULL:
        why = _WORDS[number]
        to_do = "Allow it" if number in _CLOSED else "Look at that disk"
        done = "read or written" if number == errno.EIO else "written"
        return f"{path.name} cannot be {done}: {folder} {why}. {to_do}, and run this again: what was finished is kept."
    needed = "" if n_bytes is None else f" {told(n_bytes)} are needed,"
    try:
        free = f" {told(shutil.disk_usage(folder).free)} are free"
    except OSError:
        free = ""
    why = "no room is left" if number == errno.ENOSPC else "the quota of this user is used up"
    return (
        f"{path.name} cannot be written: {why} in {folder};{needed}{free}. Make room on that disk, and run this again:"
        " what was finished is kept."
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if each.is_dir()), folder)
