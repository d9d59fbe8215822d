"""What DVC keeps on disk while it runs: whether a DVC command is at work here, and what a killed one has left behind.

DVC notes in .dvc/tmp/rwlock which files its commands use, and rewrites dvc.lock after each stage. It empties both
before it writes them, so a kill at that moment leaves them empty or cut, and every later command fails. They can be
made again: the first from nothing, the second from DVC's run cache. That is done here, where no live process uses them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from headstart.base.errors import CheckError

_SETTLES_S = 3.0  # longer than DVC needs to write either file, or to end
_POLL_S = 0.1
_CLOCK_S = 2.0  # by which the start of a process and the time of a file may differ
_FOLDER = Path(".dvc") / "tmp"
T = TypeVar("T")
_CONFLICT = b"<<<<<<<"  # of git: a person has to decide


def mend(root: Path, holds_checkout: bool = False) -> list[str]:
    """Put away what a killed DVC has left unreadable, and return a sentence on each; CheckError if one still runs here.

    A damaged dvc.lock is kept as .dvc/tmp/dvc.lock.damaged. DVC's run cache has the results that it named.
    `holds_checkout`: this process holds the lock of runs under Prefect (flows/checkout.py), so no other one does.
    """
    told: list[str] = []
    for path, is_sound, put_away in (
        (root / _FOLDER / "rwlock", _is_sound_rwlock, _forget),
        (root / "dvc.lock", _is_sound_lock, _keep_aside),
    ):
        if not _lasts(partial(_is_damaged, path, is_sound)):  # it was just being written
            continue
        if who := _lasts(lambda: next(_commands(root, holds_checkout), "")):
            raise CheckError(
                f"{path.relative_to(root)} cannot be read, and a process that may use it still runs: {who}. Wait until"
                " it has ended, or end it; then run this again, which mends the file."
            )
        with _guard(root):
            if not is_sound(path):
                told.append(f"a killed run had left {path.relative_to(root)} unreadable{put_away(root, path)}")
    return [*told, *_release(root, holds_checkout)]


def _release(root: Path, holds_checkout: bool) -> list[str]:
    """Remove an rwlock that names a process whose number belongs to another one now, as after the start of a container.

    DVC only looks whether there is a process of the number. This one began after the file was last written.
    """
    rwlock = root / _FOLDER / "rwlock"
    holders = [each for each in _holders(rwlock) if psutil.pid_exists(each[0])]
    if not holders or not all(_is_younger(pid, rwlock) for pid, _ in holders):
        return []
    if next(_commands(root, holds_checkout), ""):
        return []
    with _guard(root):
        _forget(root, rwlock)
    pid, command = holders[0]
    return [
        f"{rwlock.relative_to(root)} names process {pid} of `{command}`, which was killed: another process has that"
        " number now. It is removed"
    ]


def _is_younger(pid: int, file: Path) -> bool:
    """Return whether a process is no DVC command, and began after a file was last written."""
    try:
        process = psutil.Process(pid)
        return process.create_time() > file.stat().st_mtime + _CLOCK_S and not _is_dvc(process.cmdline())
    except (psutil.Error, OSError):
        return False


def at_work(root: Path) -> str:
    """Return which DVC command runs on this checkout, in words; an empty string if none does.

    DVC holds its lock at all times except while a stage runs, and then rwlock names its process: so the lock is taken
    first, and rwlock looked at next.
    """
    lock = root / _FOLDER / "lock"
    if not lock.exists():
        return ""
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return next(_commands(root, holds_checkout=True), "a DVC command")
        for pid, command in _holders(root / _FOLDER / "rwlock"):
            if pid != os.getpid() and psutil.pid_exists(pid):
                return f"`{command}`, process {pid}"
    return ""


def _is_damaged(path: Path, is_sound: Callable[[Path], bool]) -> bool:
    return not is_sound(path)


def _lasts(found: Callable[[], T]) -> T:
    """Return what `found` returns, after some seconds in which it stayed true, or as soon as it is false."""
    until = time.monotonic() + _SETTLES_S
    while (value := found()) and time.monotonic() < until:
        time.sleep(_POLL_S)
    return value


def _is_sound_rwlock(path: Path) -> bool:
    """Return whether DVC can read the file, or takes its absence for no use of any file."""
    try:
        return all(isinstance(each["pid"], int) and isinstance(each["cmd"], str) for each in _entries(path))
    except FileNotFoundError:
        return True
    except (ValueError, AttributeError, TypeError, KeyError):
        return False


def _entries(rwlock: Path) -> list[Any]:
    """Return what rwlock says of each use of a file; OSError, or ValueError and the like if it is damaged."""
    found = json.loads(rwlock.read_bytes())
    return [*found.get("write", {}).values(), *(each for some in found.get("read", {}).values() for each in some)]


def _is_sound_lock(path: Path) -> bool:
    """Return whether dvc.lock is absent, whole, or broken in a way that no kill explains: DVC says more of such."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return True
    if _CONFLICT in text:
        return True
    if not text.endswith(b"\n"):  # DVC's own does
        return False
    try:
        found = YAML(typ="safe").load(text)
    except (YAMLError, ValueError):
        return False
    stages = found.get("stages", {}) if isinstance(found, dict) else None
    if not (isinstance(stages, dict) and "schema" in found and all(_is_whole(each) for each in stages.values())):
        return False
    last = [*stages.values()][-1].get("outs", []) if stages else []
    return not last or _is_whole_out(last[-1])


def _is_whole_out(out: dict[str, Any]) -> bool:
    digest = str(out.get("md5", ""))
    return bool(digest) and "size" in out and ("nfiles" in out or not digest.endswith(".dir"))


def _is_whole(stage: Any) -> bool:
    """Return whether an entry of dvc.lock has a command, and no part that was begun and is empty."""
    if not isinstance(stage, dict) or "cmd" not in stage:
        return False
    lists = [stage[kind] for kind in ("deps", "outs") if kind in stage]
    files = stage.get("params", {})
    return (
        all(isinstance(each, list) and all(isinstance(entry, dict) for entry in each) for each in lists)
        and isinstance(files, dict)
        and all(isinstance(values, dict) for values in files.values())
    )


def _forget(root: Path, path: Path) -> str:
    path.unlink(missing_ok=True)
    return "; no process uses it, and it is removed"


def _keep_aside(root: Path, path: Path) -> str:
    kept = root / _FOLDER / "dvc.lock.damaged"
    kept.parent.mkdir(parents=True, exist_ok=True)  # git does not keep it
    path.replace(kept)
    return f"; it is {kept.relative_to(root)} now, and DVC's run cache gives back what it named"


@contextlib.contextmanager
def _guard(root: Path) -> Iterator[None]:
    """Hold the lock under which DVC edits rwlock.

    The file is not made: with DVC's `core.hardlink_lock` its presence would be the lock.
    """
    path = root / _FOLDER / "rwlock.lock"
    if not path.exists():
        yield
        return
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckError(
                f"another process is just writing {_FOLDER / 'rwlock'}, which cannot be read. Run this again."
            ) from None
        yield


def _holders(rwlock: Path) -> Iterator[tuple[int, str]]:
    """Yield process and command of each entry of rwlock."""
    try:
        yield from ((int(each["pid"]), str(each["cmd"])) for each in _entries(rwlock))
    except (OSError, ValueError, AttributeError, TypeError, KeyError):
        return


def _commands(root: Path, holds_checkout: bool) -> Iterator[str]:
    """Yield the DVC commands and runs that are at work here, in words, without this process and those above it."""
    own = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    if not holds_checkout and not _is_free(root / _FOLDER / "pipeline.lock"):
        yield "a run under Prefect"
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if _is_dvc(words) and process.status() != psutil.STATUS_ZOMBIE and _may_be_in(process, root):
                yield f"`{' '.join(words[-3:])}`, process {process.pid}"


def _is_dvc(words: list[str]) -> bool:
    return "dvc" in words[1:4] or any(Path(word).name == "dvc" for word in words[:2])


def _may_be_in(process: psutil.Process, root: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(root.resolve())
    except psutil.AccessDenied:  # another user's
        return True


def _is_free(lock: Path) -> bool:
    """Return whether nobody holds the lock that runs under Prefect hold."""
    if not lock.exists():
        return True
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
