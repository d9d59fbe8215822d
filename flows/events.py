"""Passes the events of a stage process, which headstart/base/progress.py writes, to the stage's Prefect task run.

Messages become log lines, progress becomes a progress artifact, and tables and pictures become artifacts. Keys of
artifacts are the same in every run, so Prefect shows the history of each.
"""

from __future__ import annotations

import base64
import contextvars
import json
import logging
import queue
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

_POLL_S = 0.2
_PROGRESS_EVERY_S = 1.0
_LAST_POST_S = 10.0  # how long a finished run waits for a slow server to take its artifacts
_PNG = b"\x89PNG"
_DIGITS = 6  # of the decimals in a table, as many as the scores have


@dataclass
class Told:
    """What a stage has reported so far."""

    path: Path  # the file that the stage appends to
    started: bool = False  # False after a stage that DVC restored from its run cache
    interrupted: bool = False  # by Ctrl-C: DVC lets it reach the stage's process, but not this one
    may_heal: bool = False  # the cause of the last error may be transient
    rejected: bool = False  # the last error says only that the accepted model is better
    errors: list[str] = field(default_factory=list)


@contextmanager
def posting() -> Iterator[list[threading.Thread]]:
    """Yield the list of threads that send artifacts; on exit, give a slow server some time to take the rest.

    A cancelled run does not wait.
    """
    threads: list[threading.Thread] = []
    patience_s = _LAST_POST_S
    try:
        yield threads
    except BaseException as error:
        patience_s = _LAST_POST_S if isinstance(error, Exception) else 0.0
        raise
    finally:
        until = time.monotonic() + patience_s
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


@contextmanager
def listening(stage: str, posters: list[threading.Thread]) -> Iterator[Told]:
    """Pass on the events of one stage while the body runs; a thread, added to `posters`, sends its artifacts.

    The stage never waits for the listener, and the next stage never waits for artifacts of this one. A line that cannot
    be parsed is dropped with a warning.
    """
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        told = Told(Path(folder) / "events.jsonl")
        told.path.touch()
        stop = threading.Event()
        poster = Poster(stage)
        tail = _in_this_run(_tail, told, poster, get_run_logger(), stop)
        posters.append(_in_this_run(poster.run))
        try:
            yield told
        finally:
            stop.set()
            tail.join()
            poster.end()


class Poster:
    """Sends artifacts to Prefect's server from a thread of its own, progress at most once a second."""

    def __init__(self, stage: str) -> None:
        self._key = f"{re.sub('[^a-z0-9]', '-', stage.lower())}-progress"  # Prefect allows nothing else in a key
        self._logger = get_run_logger()
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._progress: dict[str, Any] | None = None  # the latest event that has not been sent
        self._bar: UUID | None = None
        self._sent = 0.0

    def post(self, event: dict[str, Any]) -> None:
        """Queue an event to be sent."""
        self._waiting.put(event)

    def end(self) -> None:
        """Let `run` return once everything is sent."""
        self._waiting.put(None)

    def run(self) -> None:
        """Send queued events until `end` is called."""
        while True:
            try:
                event = self._waiting.get(timeout=_PROGRESS_EVERY_S)
            except queue.Empty:
                self._send_progress()
                continue
            if event is None:
                self._send_progress()
                return
            if event["kind"] == "progress":
                self._progress = event
                if time.monotonic() - self._sent > _PROGRESS_EVERY_S:
                    self._send_progress()
            else:
                self._try(partial(self._show, event))

    def _show(self, event: dict[str, Any]) -> None:
        if event["kind"] == "table":
            create_table_artifact(_rounded(event["rows"]), key=event["key"], description=event["description"])
        else:
            # In Markdown, because Prefect's page prints the whole address of an image artifact below it.
            picture = f"![{event['description']}]({data_uri(event['data'])})"
            create_markdown_artifact(picture, key=event["key"], description=event["description"])

    def _send_progress(self) -> None:
        if self._progress is not None:
            event, self._progress, self._sent = self._progress, None, time.monotonic()
            self._try(partial(self._draw, event))

    def _draw(self, event: dict[str, Any]) -> None:
        percent = 100.0 * event["done"] / max(event["total"], 1)
        text = f"{event['what']}: {event['done']} of {event['total']} {event['unit']}s"
        if "rate" in event:  # not told before there is one
            text += f", {event['rate']:.1f} per second"
        if self._bar is None:
            self._bar = cast("UUID", create_progress_artifact(percent, key=self._key, description=text))
        else:
            update_progress_artifact(self._bar, percent, description=text)

    def _try(self, send: Callable[[], None]) -> None:
        try:
            send()
        except Exception as error:  # no error here may fail the run
            self._logger.warning("Prefect's page does not show one of the stage's artifacts: %s", error)


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows whose numbers fit Prefect's columns."""
    return [
        {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]


def data_uri(data: str) -> str:
    """Return the data URI of a PNG or JPEG, given in base64."""
    kind = "png" if base64.b64decode(data[:8]).startswith(_PNG) else "jpeg"
    return f"data:image/{kind};base64,{data}"


def _in_this_run(work: Callable[..., None], *arguments: object) -> threading.Thread:
    """Start a thread whose log lines and artifacts belong to the current task run."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work, *arguments), daemon=True)
    thread.start()
    return thread


def _tail(told: Told, poster: Poster, logger: Any, stop: threading.Event) -> None:
    with told.path.open(encoding="utf-8") as file:
        rest = ""
        while True:
            last = stop.is_set()
            *lines, rest = (rest + file.read()).split("\n")
            for line in lines:
                _hear(line, told, poster, logger)
            if last:
                return
            stop.wait(_POLL_S)


def _hear(line: str, told: Told, poster: Poster, logger: Any) -> None:
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
                told.may_heal, told.rejected = event["may_heal"], event["rejected"]
            case "progress" | "table" | "image":
                poster.post(event)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("an event of the stage cannot be parsed: %r", error)
