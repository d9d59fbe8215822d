"""Where ledgers lie: one process has a ledger at a time, and one that is replaced is kept beside the new one."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from headstart.base.errors import CheckError
from headstart.base.reading import is_folder
from headstart.monitoring import ledger as ledgers
from headstart.monitoring.ledger import Ledger
from headstart.monitoring.reference import Reference

_SEED_BITS = 63


class Opened:
    """A ledger, and the file that makes room for it; nothing is moved until it is first written."""

    def __init__(self, path: Path, ledger: Ledger, old: Ledger | None = None, resumed: Path | None = None) -> None:
        """`old`: another ledger that lies at `path`. `resumed`: where `ledger` lies, if not there."""
        self.path, self.ledger = path, ledger
        self._old, self._resumed = old, resumed

    def write(self) -> str:
        """Write the ledger; return what to say of the one that was there. CheckError, and no change, if it cannot."""
        if self._old is None:
            self.ledger.write(self.path)
            return ""
        aside = _moved_aside(self.path, self._old)
        try:
            self.ledger.write(self.path)
        except CheckError:
            with contextlib.suppress(OSError):
                aside.rename(self.path)
            raise
        is_of_another = self._old.model_sha256 != self.ledger.model_sha256
        goes_on = "that of this model goes on" if self._resumed else "a new one begins"
        if self._resumed:
            with contextlib.suppress(OSError):
                self._resumed.unlink()
        self._old = self._resumed = None
        if is_of_another:
            return f"the ledger was that of another model; it is now {aside.name}, and {goes_on}"
        return f"the ledger so far is now {aside.name}"


def opened(
    path: Path,
    known: Reference,
    false_alarm: float | None,
    default: float,
    *,
    is_new: bool = False,
    seed: int | None = None,
) -> Opened:
    """Return the ledger of a model: the one at `path`, the last one that was moved aside from there, or a new one.

    One of another model makes room, since its evidence is about that; with `is_new` any does. `false_alarm` None: that
    of the ledger, or `default`; CheckError where it is another than the ledger's, whose evidence was gathered for its
    own. `seed`: of a new ledger; None draws one.
    """
    there = ledgers.read(path)
    found, resumed = None if is_new else there, None
    if found is not None and found.model_sha256 != known.model_sha256:
        found, resumed = _last_aside(path, known.model_sha256)
    if found is None:
        seed = secrets.randbits(_SEED_BITS) if seed is None else seed
        return Opened(path, Ledger.begun(known, false_alarm or default, seed), there)
    if false_alarm is not None and false_alarm != found.false_alarm:
        raise CheckError(
            f"{resumed or path} was begun with a chance of false alarms of {found.false_alarm:g}, not {false_alarm:g}."
            " A bound that is chosen later does not hold. Leave --false-alarm out, or begin anew with --new."
        )
    return Opened(path, found, there if resumed else None, resumed)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a ledger to this process; CheckError if another one has it, since one of the two would be lost."""
    if not path.name or is_folder(path):
        raise CheckError(
            f"the ledger is to be '{path}', which is a folder. A file was expected. Name one with --ledger."
        )
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise CheckError(
            f"{path} cannot be written ({error.strerror}). A place for the ledger was expected. Name one with --ledger."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckError(
                f"{path} is in use by another process. One at a time was expected. Wait for it, or name another ledger."
            ) from None
        yield


def _moved_aside(path: Path, found: Ledger) -> Path:
    """Give a ledger the name of its model, and the next number if there are such; return its new path."""
    stem = f"{path.stem}.{found.model_sha256[:12]}"
    try:
        number = max((number for number, _ in _asides(path, found.model_sha256)), default=-1) + 1
        aside = path.with_name(f"{stem}{f'.{number}' if number else ''}{path.suffix}")
        path.rename(aside)
    except OSError as error:
        raise CheckError(
            f"{path}, an older ledger, cannot be moved aside ({error.strerror}). A folder that may be written to was"
            " expected. Name another ledger with --ledger."
        ) from None
    return aside


def _last_aside(path: Path, model_sha256: str) -> tuple[Ledger | None, Path | None]:
    """Return the ledger of a model that was moved aside last, and its path; None twice if there is none."""
    try:
        places = sorted(_asides(path, model_sha256), reverse=True)
    except OSError:
        return None, None
    for _, place in places[:1]:
        found = ledgers.read(place)
        if found is not None and found.model_sha256 == model_sha256:
            return found, place
    return None, None


def _asides(path: Path, model_sha256: str) -> Iterator[tuple[int, Path]]:
    name = re.compile(rf"{re.escape(f'{path.stem}.{model_sha256[:12]}')}(?:\.([1-9][0-9]*))?{re.escape(path.suffix)}")
    for each in path.parent.iterdir():
        if there := name.fullmatch(each.name):
            yield int(there[1] or 0), each
