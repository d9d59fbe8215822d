"""The models that are served: by name, verified, and replaced without a pause when their files change."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, HeadstartError
from headstart.base.files import sha256_of
from headstart.base.reading import exists, is_folder
from headstart.handover.model import Model, file_of
from headstart.onnx.model_folder import RECORD, SUMS
from headstart.serving.pieces import Pieces

_LOOKS_EVERY_S = 1.0
_VERIFIES_WITHIN_S = 600
_WARM_UP_PX = 64

log = logging.getLogger("headstart.serving")


class Served:
    """One version of a model, ready to answer; it is never changed.

    A call of its own takes all cores if there is no other, and one core if there are. Threads that share a call wait
    for one another: `alone` gives the shortest time, `among` the most images a second.
    """

    def __init__(self, name: str, path: Path, in_batches: bool) -> None:
        self.name = name
        self.alone = Model(path, spins=False)
        self.among = Model(path, threads=1) if n_cores() > 1 else self.alone
        self.model_sha256 = sha256_of(self.alone.file)
        self.version = self.model_sha256[:12]
        self.pieces = Pieces(self.alone.file) if in_batches else None
        image = np.zeros((1, _WARM_UP_PX, _WARM_UP_PX, 3), np.uint8)
        self.among.outputs(image)
        found = self.alone.outputs(image)
        self.outputs = {each: (str(array.dtype), array.shape[1:]) for each, array in found.items()}


class Models:
    """The served models. `current` is replaced by the thread that loads, and read by all others."""

    def __init__(self, named: Sequence[tuple[str, Path]], in_batches: bool, tell: Callable[[str, bool], None]) -> None:
        """Verify and load all; CheckError if one is not sound. `tell` hears of each later one: whether it is taken."""
        self._paths = dict(named)
        self._in_batches, self._tell = in_batches, tell
        self._seen = {name: _signature(path) for name, path in named}
        self.current = {name: _sound(name, path, in_batches) for name, path in named}

    @property
    def first(self) -> Served:
        """The model that answers where no name is given."""
        return next(iter(self.current.values()))

    async def watch(self, asked: asyncio.Event) -> None:
        """Load what has changed, for ever; all if `asked` is set."""
        while True:
            is_asked = False
            try:
                await asyncio.wait_for(asked.wait(), _LOOKS_EVERY_S)
                asked.clear()
                is_asked = True
            except TimeoutError:
                pass
            for name in self._changed(is_asked):
                await asyncio.to_thread(self._load, name)

    def _changed(self, is_asked: bool) -> Iterator[str]:
        for name, path in self._paths.items():
            now = _signature(path)
            if now is not None and (is_asked or now != self._seen[name]):
                self._seen[name] = now
                yield name

    def _load(self, name: str) -> None:
        """Take the model that lies there now, or keep the old one and say why."""
        path = self._paths[name]
        try:
            new = _sound(name, path, self._in_batches)
            if _signature(path) != self._seen[name]:
                return  # replaced meanwhile: the files may be of both, and the next look takes the later
        except HeadstartError as error:
            kept = self.current[name].version
            log.error("model %s: what lies at %s is not taken, %s goes on. %s", name, path, kept, error)
            self._tell(name, False)
            return
        self.current = {**self.current, name: new}
        log.info("model %s: %s of %s answers from now on", name, new.version, path)
        self._tell(name, True)


def named(words: Sequence[str]) -> list[tuple[str, Path]]:
    """Return name and path of each `PATH` or `NAME=PATH` of a command line; CheckError if two have one name."""
    found: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        path = Path(rest if equals and not exists(Path(word)) else word)
        if path == Path(word):
            folder = path if is_folder(path) else path.parent
            name = folder.resolve().name
        if not name or "/" in name:
            raise CheckError(f"'{name}' cannot be the name of a model. Write NAME=FOLDER, such as birds={path}.")
        if name in found:
            raise CheckError(
                f"{found[name]} and {path} would both be named '{name}'. Write NAME=FOLDER, such as other={path}."
            )
        found[name] = path
    return list(found.items())


def _sound(name: str, path: Path, in_batches: bool) -> Served:
    """Return the model at `path`; CheckError if it does not answer or if `headstart verify` rejects its folder."""
    folder = file_of(path).parent
    if not (folder / SUMS).exists():  # a model.onnx alone has nothing to be compared with
        return Served(name, path, in_batches)
    # A process of its own: whatever a broken file does to a runtime, this server lives.
    command = [sys.executable, "-P", "-m", "headstart", "verify", str(folder.resolve())]
    same_code = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # and none of the working folder
    with subprocess.Popen(
        command, env=same_code, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as verifying:
        try:
            said = verifying.communicate(timeout=_VERIFIES_WITHIN_S)[1]
        except subprocess.TimeoutExpired:
            verifying.kill()
            said = f"it was not verified within {_VERIFIES_WITHIN_S} seconds"
    if verifying.returncode:
        raise CheckError(said.strip().removeprefix("verify: ") or f"`verify` ended with {verifying.returncode}.")
    return Served(name, path, in_batches)


def _signature(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """Return what changes when the model is replaced; None while there is none."""
    try:
        file = file_of(path)
        others = [each for name in (SUMS, RECORD) if (each := file.parent / name).exists()]
        stats = [each.stat() for each in (file, *others)]
    except (OSError, CheckError):
        return None
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats)
