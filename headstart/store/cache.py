"""The cache of this machine's user: what took time to compute, shared by all projects.

    rows/<what>-<fingerprint>/<digest>.safetensors   rows of images, as `store.row_cache` writes them
    results/<stage>/<made for>/                      exported backbones, finished heads and networks

It holds nothing that cannot be computed again, so it may be deleted at any time, also while a stage runs. Several
processes may use it at once: whatever enters it is written under a temporary name and then renamed. It is bounded in
size; what was used longest ago goes first. The time of use is the time of modification of a file or a result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

VARIABLE = "HEADSTART_CACHE"
_ROWS, _RESULTS = "rows", "results"
_SPARE = 10  # a tenth of the disk stays free
_FORGOTTEN_S = 86_400  # a partly written file of this age was left by a process that was killed


class Item(NamedTuple):
    """The smallest part that is removed at once: a file of rows, or a result."""

    path: Path
    what: str  # 'pixels', 'features', 'views', 'measures', 'frozen layers', or the stage of a result
    n_bytes: int
    used: float  # seconds since the epoch


@dataclass(frozen=True)
class Cache:
    """A folder and its largest size."""

    folder: Path
    max_bytes: int

    @classmethod
    def of(cls, folder: Path | None, max_gb: float) -> Cache:
        """Return the cache in `folder`, else in $HEADSTART_CACHE, else where this system keeps a user's caches."""
        return cls(folder or default_folder(), round(max_gb * 1e9))

    def rows(self, what: str, fingerprint: str) -> Path:
        """Return the folder of the rows of one contract."""
        return self.folder / _ROWS / f"{what}-{fingerprint[:32]}"

    def refusal(self, n_bytes: int) -> str:
        """Return why so much cannot be in it, even with everything else removed; '' if it can.

        A folder that cannot be written, as in a container without a home, is no reason for a stage to fail.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return f"{self.folder} cannot be made ({error.strerror}); cache.dir names another folder"
        if not os.access(self.folder, os.W_OK | os.X_OK):
            return f"{self.folder} cannot be written; cache.dir names another folder"
        if n_bytes > self._limit(sum(item.n_bytes for item in self.items())):
            return f"they take {n_bytes / 1e9:.1f} GB, more than cache.max_gb or the disk allows"
        return ""

    def items(self) -> list[Item]:
        """Return everything in it, what was used longest ago first."""
        found = []
        for path in [*self.folder.glob(f"{_ROWS}/*/[!.]*"), *self.folder.glob(f"{_RESULTS}/*/[!.]*")]:
            is_rows = path.parent.parent.name == _ROWS
            what = path.parent.name.rpartition("-")[0].replace("-", " ") if is_rows else path.parent.name
            try:
                files = [path] if is_rows else list(path.iterdir())
                found.append(Item(path, what, sum(file.stat().st_size for file in files), path.stat().st_mtime))
            except OSError:  # another process has removed it, or it is not ours
                continue
        return sorted(found, key=lambda item: (item.used, item.path))

    def prune(self, max_bytes: int | None = None) -> int:
        """Remove what was used longest ago until it fits its largest size, or `max_bytes`; return the bytes removed."""
        items = self.items()
        size = sum(item.n_bytes for item in items)
        limit = self._limit(size) if max_bytes is None else max_bytes
        removed = 0
        for item in items:
            if size - removed <= limit:
                break
            if _remove(item.path):
                removed += item.n_bytes
        for path in self._left_behind():
            _remove(path)
        return removed

    def take(self, stage: str, made_for: str, folder: Path, is_sound: Callable[[Path], bool]) -> bool:
        """Copy the result of `stage` that was made for the same; return whether there was one and it `is_sound`."""
        from headstart.base.files import replacing_folder

        kept = self._result(stage, made_for)
        try:
            with replacing_folder(folder) as beside:
                shutil.copytree(kept, beside, dirs_exist_ok=True, copy_function=shutil.copyfile)
                if not is_sound(beside):
                    raise FileNotFoundError
        except (OSError, shutil.Error):
            return False
        with contextlib.suppress(OSError):  # another process has removed it meanwhile, or it is not ours
            os.utime(kept)
        return True

    def put(self, stage: str, made_for: str, folder: Path) -> None:
        """Keep a copy of the finished result in `folder`. A full or read-only disk is no reason to fail."""
        kept = self._result(stage, made_for)
        beside = kept.with_name(f".{kept.name}.{uuid4().hex[:8]}.partial")
        try:
            shutil.copytree(folder, beside, copy_function=shutil.copyfile)
            _remove(kept)  # damaged, or the same
            beside.rename(kept)
        except (OSError, shutil.Error):
            shutil.rmtree(beside, ignore_errors=True)
        self.prune()

    def _result(self, stage: str, made_for: str) -> Path:
        return self.folder / _RESULTS / stage / made_for

    def _limit(self, size: int) -> int:
        """Return the largest size: `max_bytes`, or less if the disk is nearly full."""
        disk = shutil.disk_usage(next(each for each in (self.folder, *self.folder.parents) if each.is_dir()))
        return max(0, min(self.max_bytes, size + disk.free - disk.total // _SPARE))

    def _left_behind(self) -> Iterator[Path]:
        """Yield what killed processes had begun to write."""
        for path in self.folder.glob("*/*/.*partial"):
            try:
                if time.time() - path.stat().st_mtime > _FORGOTTEN_S:
                    yield path
            except FileNotFoundError:
                continue


def default_folder() -> Path:
    """Return $HEADSTART_CACHE, or the folder `headstart` among the caches of this user."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "headstart"
    try:
        home = Path.home()
    except RuntimeError:  # a container's user without a home: `refusal` tells that the folder below cannot be made
        home = Path(os.sep)
    return home / ".cache" / "headstart"


def _remove(path: Path) -> bool:
    """Remove a file or a folder, in one step for processes that look at it meanwhile; return whether that was possible.

    It is not where another process was quicker, or where another user owns it.
    """
    doomed = path.with_name(f".{uuid4().hex[:8]}.partial")
    try:
        if not path.is_dir():
            path.unlink()
            return True
        path.rename(doomed)
    except OSError:
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return True
