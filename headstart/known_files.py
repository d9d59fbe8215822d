"""What was found in files, kept on this machine, so that a file that has not changed since need not be opened again.

A file has not changed while its device, inode, size and its times of modification and of change are those of before.
As in git, a file that was as new as the look at it may have changed without a trace: it is not kept. Nor is a file that
could not be used, nor one that is read by a URL. So results are the same with and without what is kept here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import polars as pl

from headstart.base.errors import DataError, count_and_name, counted
from headstart.base.files import is_local, located
from headstart.base.progress import say
from headstart.images.decoding import decoder

if TYPE_CHECKING:
    from headstart.store.cache import Cache

_STAGE, _TABLE, _DIGEST = "validate", "files.parquet", "files.sha256"
_VERSION = 2  # of this record; raise it when a file that was usable no longer is, or its facts change
_LOOKS = 3  # at files of which some change meanwhile
_TOO_NEW_NS = 2_000_000_000  # the coarsest clock of a file system, FAT's


class _Named(Protocol):
    @property
    def path(self) -> str: ...


class _Listed(Protocol):
    @property
    def found(self) -> Sequence[_Named]: ...


L = TypeVar("L", bound=_Listed)
R = TypeVar("R")


class Stamp(NamedTuple):
    """What tells that a file is the one of before. Its time of modification can be set back; that of change cannot."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Contents(NamedTuple):
    """What was found in a usable file."""

    image_id: str
    format: str
    width_px: int
    height_px: int
    n_bytes: int
    bits: int | None  # that the values use; None: a file with 8 bits a channel


Key = tuple[str, int]  # path, and of how many bits its values were taken
_SCHEMA = {
    **{"path": pl.String, "of_bits": pl.Int64},
    **{"device": pl.UInt64, "inode": pl.UInt64, "size": pl.Int64, "modified_ns": pl.Int64, "changed_ns": pl.Int64},
    **{"image_id": pl.String, "format": pl.String, "width_px": pl.Int64, "height_px": pl.Int64},
    **{"n_bytes": pl.Int64, "bits": pl.Int64},
}


def stamp(path: str, folder: Path) -> Stamp | None:
    """Return the stamp of a file now; None for one that is not there, or is read by a URL."""
    file = located(path, folder)
    try:
        found = file.stat() if is_local(file) else None
    except OSError:
        return None
    return found and Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@dataclass
class KnownFiles:
    """The files of one data.root that were usable when they were last opened."""

    folder: Path  # to which paths are relative
    before: Mapping[Key, tuple[Stamp, Contents]] = field(default_factory=dict)
    now: dict[Key, tuple[Stamp, Contents]] = field(default_factory=dict)
    seen: dict[str, Stamp | None] = field(default_factory=dict)  # the stamp of each file when it was last looked at

    def of(self, path: str, of_bits: int) -> Contents | None:
        """Return what is in a file; None where it is not known, or has changed."""
        known = self.before.get((path, of_bits))
        if known is None or known[0] != stamp(path, self.folder):
            return None
        self.seen[path] = known[0]
        self.now[path, of_bits] = known
        return known[1]

    def keep(self, path: str, of_bits: int, seen: Stamp | None, began_ns: int, contents: Contents) -> None:
        """Note what is in a file, whose stamp was `seen` at `began_ns`, before it was read."""
        is_old = seen and max(seen.modified_ns, seen.changed_ns) + _TOO_NEW_NS < began_ns
        if seen and is_old and seen == stamp(path, self.folder):
            self.now[path, of_bits] = seen, contents

    def changed(self) -> list[str]:
        """Return the files that are no longer those that were looked at."""
        return [path for path, seen in self.seen.items() if seen != stamp(path, self.folder)]


def until_settled(known: KnownFiles, listed: L, find: Callable[[], L], look: Callable[[L], R]) -> tuple[L, R]:
    """Return the listing and what `look` returns for it, as they are when no file of it has changed meanwhile.

    DVC notes the files as they are after the stage: if one had changed in between, the results would be taken for those
    of the new one in every later run. `find` lists them again, or returns the same. DataError if some file is another
    one each time.
    """
    for _ in range(_LOOKS):
        found = look(listed)
        now = find()
        changed = {*known.changed()}
        if now is not listed:
            changed |= {each.path for each in now.found} ^ {each.path for each in listed.found}
        if not changed:
            return listed, found
        files = counted(len(changed), "file has", "files have")
        say(f"{files} changed meanwhile ({count_and_name(sorted(changed))}); looking again")
        listed, known.before, known.seen = now, {**known.before, **known.now}, {}
    raise DataError(
        f"{counted(len(changed), 'file changes while it is read', 'files change while they are read')}"
        f" ({count_and_name(sorted(changed))}). Files that stay as they are were expected. Wait until nothing writes"
        " them, and run this again."
    )


def clock_ns() -> int:
    """Return the time that `KnownFiles.keep` compares the times of files with."""
    return time.time_ns()


def load(cache: Cache, data: Path, folder: Path, rules: object) -> KnownFiles:
    """Return what is known of the files of `data`, whose paths are relative to `folder`; nothing if it is damaged.

    `rules`: what decides whether a file can be used. Under others it is opened again.
    """
    with TemporaryDirectory() as name:
        beside = Path(name) / "known"
        if not is_local(data) or not cache.take(_STAGE, _made_for(data, rules), beside, _is_sound):
            return KnownFiles(folder)
        table = pl.read_parquet(beside / _TABLE)
    before = {row[:2]: (Stamp(*row[2:7]), Contents(*row[7:])) for row in table.iter_rows()}
    return KnownFiles(folder, before)


def save(known: KnownFiles, cache: Cache, data: Path, rules: object) -> None:
    """Keep what is known now, under these rules, if that is not what was known before."""
    if not is_local(data) or known.now == known.before:
        return
    rows = [(*key, *seen, *contents) for key, (seen, contents) in sorted(known.now.items())]
    with TemporaryDirectory() as name:
        file = Path(name) / _TABLE
        pl.DataFrame(rows, _SCHEMA, orient="row").write_parquet(file)
        (Path(name) / _DIGEST).write_text(_digest(file), encoding="ascii")
        cache.put(_STAGE, _made_for(data, rules), Path(name))


def _made_for(data: Path, rules: object) -> str:
    """Return the name of the record: another version of the decoder may find other things in a file."""
    return hashlib.sha256(f"{_VERSION} {[*_SCHEMA]} {decoder()} {rules} {data.resolve()}".encode()).hexdigest()


def _is_sound(folder: Path) -> bool:
    return _digest(folder / _TABLE) == (folder / _DIGEST).read_text(encoding="ascii")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
