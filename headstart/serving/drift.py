"""What the served models meet, counted in a ledger for each: `headstart serve --monitor FOLDER`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.errors import CheckError
from headstart.handover.model import NOVEL_ABOVE
from headstart.monitoring import keeping, watch
from headstart.monitoring.command import now, reference_of
from headstart.monitoring.ledger import Ledger
from headstart.monitoring.reference import Reference
from headstart.monitoring.watch import FALSE_ALARM, Batch
from headstart.serving.models import Models, Served

LOOK_EVERY = 100  # images

log = logging.getLogger("headstart.serving")


@dataclass
class _Watched:
    """A model's ledger, and the images since the last look."""

    served: Served
    path: Path
    known: Reference
    ledger: Ledger
    lock: threading.Lock = field(default_factory=threading.Lock)  # a look writes the ledger beside the event loop
    outputs: list[dict[str, np.ndarray]] = field(default_factory=list)  # a row each
    digests: list[bytes] = field(default_factory=list)
    n_counted: int = 0  # of them, new to the ledger
    told: dict[str, Any] | None = None  # of the last look
    has_told_alarm: bool = False
    is_current: bool = True  # until another version has the path; read and set under `lock`


class Drift:
    """The ledgers of a server. All but looks run in the event loop."""

    def __init__(self, folder: Path, models: Models) -> None:
        """Open FOLDER/NAME.json for each model; CheckError if one cannot be watched."""
        self._folder, self._models = folder, models
        self._held = contextlib.ExitStack()
        self._watched: dict[str, _Watched | None] = {}
        self._failed: dict[str, str] = {}  # model -> its version that cannot be watched
        self._told: set[tuple[str, str]] = set()  # model and version of which an error was logged
        self._looks: set[asyncio.Task[None]] = set()
        try:
            for name, served in models.current.items():
                self._held.enter_context(keeping.held(self._path(name)))
                self._watched[name] = self._opened(served)
        except BaseException:
            self._held.close()
            raise

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _opened(self, served: Served) -> _Watched:
        known = reference_of(served.alone, served.model_sha256)
        path = self._path(served.name)
        opened = keeping.opened(path, known, None, FALSE_ALARM)
        if said := opened.write():
            log.info("model %s: %s", served.name, said)
        return _Watched(served, path, known, opened.ledger, has_told_alarm=opened.ledger.alarm is not None)

    def count(self, served: Served, outputs: Mapping[str, np.ndarray], images: Sequence[bytes] | np.ndarray) -> None:
        """Count the answered images, whose files or pixels are `images`; look at every hundred, beside the loop.

        What goes wrong is logged, once for each version of a model, and fails no request.
        """
        try:
            self._count(served, outputs, images)
        except Exception as error:
            if (served.name, served.version) not in self._told:
                self._told.add((served.name, served.version))
                log.error(
                    "model %s: not all that version %s answers is counted. %s", served.name, served.version, error
                )

    def _count(self, served: Served, outputs: Mapping[str, np.ndarray], images: Sequence[bytes] | np.ndarray) -> None:
        watched = self._of(served)
        if watched is None:
            return
        digests = [hashlib.sha256(each).digest() for each in images]
        names = [digest.hex()[:12] for digest in digests]
        with watched.lock:
            watched.n_counted += watched.ledger.add(outputs, digests, names, now())
        alarm = watched.ledger.alarm
        if alarm and not watched.has_told_alarm:
            watched.has_told_alarm = True
            log.warning(
                "model %s: drift. After %d images those that arrive are unlike the held-out ones, by %s",
                *(served.name, alarm.n_images, alarm.score),
            )
        watched.outputs += [
            {name: array[row : row + 1] for name, array in outputs.items()} for row in range(len(digests))
        ]
        watched.digests += digests
        if len(watched.digests) >= LOOK_EVERY:
            batch, n_counted = _taken(watched)
            task = asyncio.create_task(asyncio.to_thread(_look, watched, batch, n_counted))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    def _of(self, served: Served) -> _Watched | None:
        """Return what watches this version of a model; None if it was replaced, or its folder lacks what is normal."""
        name, version = served.name, served.version
        if self._models.current[name].version != version:
            return None  # its request was in flight when another version took its place
        watched = self._watched[name]
        if watched is not None and watched.served.version == version:
            return watched
        if self._failed.get(name) == version:
            return None
        self._watched[name], self._failed[name] = None, version
        if watched is not None:
            _retire(watched)
        self._watched[name] = self._opened(served)
        del self._failed[name]
        return self._watched[name]

    def close(self) -> None:
        """Write what was counted since the last look."""
        with self._held:
            for watched in self._watched.values():
                if watched is not None:
                    _look(watched, *_taken(watched))

    def state(self) -> dict[str, dict[str, Any]]:
        """Return model -> alarm, evidence, images and the last look, as plain values."""
        found = {}
        for name, watched in self._watched.items():
            if watched is None:
                continue
            ledger = watched.ledger
            found[name] = {
                "alarm": ledger.alarm
                and {"score": ledger.alarm.score, "n_images": ledger.alarm.n_images, "time": ledger.alarm.time},
                "evidence": {score: made.log_capital / np.log(10) for score, made in ledger.bets.items()},
                "limit": float(np.log10(ledger.limit)),
                "n_images": ledger.n_images,
                "false_alarm": ledger.false_alarm,
                "last_look": watched.told,
            }
        return found


def _taken(watched: _Watched) -> tuple[Batch | None, int]:
    """Return the images since the last look, None if there are none, and begin anew."""
    rows, digests, n_counted = watched.outputs, watched.digests, watched.n_counted
    watched.outputs, watched.digests, watched.n_counted = [], [], 0
    if not rows:
        return None, 0
    outputs = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return Batch(outputs, digests, [""] * len(digests)), n_counted


def _look(watched: _Watched, batch: Batch | None, n_counted: int) -> None:
    """Look at the images, and write the ledger."""
    model, ledger = watched.served.alone, watched.ledger
    if batch is not None:
        seen = watch.look(ledger, watched.known, batch, model.abstain_below, NOVEL_ABOVE, now(), n_counted)
        watched.told = watch.told(seen, ledger, watched.known, model.classes)
    with watched.lock:
        if watched.is_current:  # else its path is that of a newer version's ledger
            _write(watched)


def _retire(watched: _Watched) -> None:
    """Write the ledger of a version that was replaced for the last time."""
    with watched.lock:
        watched.is_current = False
        _write(watched)


def _write(watched: _Watched) -> None:
    try:
        watched.ledger.write(watched.path)
    except CheckError as error:
        log.error("model %s: what was counted is not kept. %s", watched.served.name, error)


def opened(folder: Path | None, models: Models) -> Drift | None:
    """Return what watches the models, None without a folder; CheckError if a ledger cannot be kept there."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckError(
            f"--monitor is '{folder}', which cannot be made ({error.strerror}). A folder for the ledgers was expected."
        ) from None
    return Drift(folder, models)
