"""What a stage process tells (headstart/progress.py writes it), passed on to the Prefect task run that waits for it."""

from __future__ import annotations

import contextvars
import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import get_run_logger

_POLL_S = 0.2


@dataclass
class Told:
    """What has been heard of a stage so far."""

    path: Path  # the file that the stage appends to
    started: bool = False  # False after a stage that DVC restored from its run cache
    interrupted: bool = False  # by Ctrl-C, which reaches the stage's process and not this one: DVC sees to that
    errors: list[str] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Told]:
    """Pass the lines of one stage on to the current run's log while the body runs.

    The stage never waits for the listener, and a line that cannot be understood is dropped with a warning.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        told = Told(Path(folder) / "events.jsonl")
        told.path.touch()
        stop = threading.Event()
        logger = get_run_logger()
        context = contextvars.copy_context()  # so that what is logged belongs to this task run
        thread = threading.Thread(target=context.run, args=(_tail, told, logger, stop), daemon=True)
        thread.start()
        try:
            yield told
        finally:
            stop.set()
            thread.join()


def _tail(told: Told, logger: Any, stop: threading.Event) -> None:
    with told.path.open(encoding="utf-8") as file:
        rest = ""
        while True:
            last = stop.is_set()
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines:
                _hear(line, told, logger)
            if last:
                return
            stop.wait(_POLL_S)


def _hear(line: str, told: Told, logger: Any) -> None:
    try:
        event = json.loads(line)
        match event["kind"]:
            case "start":
                told.started = True
            case "log":
                logger.log(logging.getLevelNamesMapping()[event["level"].upper()], "%s", event["message"])
            case "interrupted":
                told.interrupted = True
            case "error":
                told.errors.append(event["message"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("a line that the stage told is not understood: %r", error)
