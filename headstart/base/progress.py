"""A stage's messages and progress: for the terminal, and for the process that started it, as JSON lines in a file.

If `HEADSTART_EVENTS` names a file, every call also appends one line to it, which the Prefect flow reads. The module
imports only the standard library and tqdm: a stage imports neither prefect nor dvc.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

EVENTS_VARIABLE = "HEADSTART_EVENTS"
_PLAIN_LINE_EVERY_S = 5.0
_EVENT_EVERY_S = 0.5

_stage = "headstart"
_muted = False
_bar: Any = None  # tqdm's, while one is on the terminal
_writing = threading.Lock()  # keeps lines whole when several threads write


def begin(stage: str) -> None:
    """Set the stage name of the messages that follow."""
    global _stage
    _stage = stage
    emit("start", stage=stage, pid=os.getpid())


def mute() -> None:
    """Report nothing but errors from here on, because another of several cooperating processes reports."""
    global _muted
    _muted = True


def is_muted() -> bool:
    """Return whether another process reports for this one."""
    return _muted


def say(message: str) -> None:
    """Report information to the user, on stdout."""
    if _muted:
        return
    _tell("info", message, sys.stdout)


def warn(message: str) -> None:
    """Report a warning to the user, on stderr."""
    if _muted:
        return
    _tell("warning", message, sys.stderr)


def fail(message: str, may_heal: bool = False, rejected: bool = False) -> None:
    """Report why the stage stops, on stderr.

    `may_heal`: a later attempt may succeed. `rejected`: the stage works, but the accepted model is better.
    """
    _print(message, sys.stderr)
    emit("error", message=message, may_heal=may_heal, rejected=rejected)


def show_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """Send rows with the same columns to the listener. `key`: lower case, digits, dashes; the same in every run."""
    emit("table", key=key, rows=rows, description=description)


def show_image(key: str, draw: Callable[[], bytes], description: str) -> None:
    """Send a PNG or JPEG to the listener. Without a listener it is not drawn; a failure to draw is only a warning."""
    if not is_heard():
        return
    try:
        data = draw()
    except Exception as error:
        warn(f"the picture '{key}' could not be drawn: {error}")
        return
    emit("image", key=key, data=base64.b64encode(data).decode(), description=description)


def is_heard() -> bool:
    """Return whether a listener reads the events."""
    return bool(os.environ.get(EVENTS_VARIABLE)) and not _muted


def _tell(level: str, message: str, file: TextIO) -> None:
    if is_heard():  # the listener logs it to the same terminal
        emit("log", level=level, message=message)
    else:
        _print(message if level == "info" else f"{level}: {message}", file)


def _print(message: str, file: TextIO) -> None:
    line = f"{_stage}: {message}"
    if _bar is None:
        print(line, file=file, flush=True)
    else:  # print above the bar, not into it
        _bar.write(line, file=file)
        file.flush()


def emit(kind: str, **values: object) -> None:
    """Append one event for the listener; a failure to write it never stops the stage."""
    if is_heard():
        line = json.dumps({"kind": kind, **values}, default=_plain) + "\n"
        path = os.environ[EVENTS_VARIABLE]
        with _writing, contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(line)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)  # .item() of numpy's numbers


@contextlib.contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`, for any thread. A terminal gets a bar with rate and time left, other outputs plain lines."""
    yield_to = _terminal_bar if sys.stderr.isatty() else _plain_lines
    if _muted or (is_heard() and not sys.stderr.isatty()):
        yield_to = _nothing
    done = told = 0
    last_event, began = 0.0, time.monotonic()
    lock = threading.Lock()

    def tell() -> None:
        nonlocal told, last_event
        told, last_event = done, time.monotonic()
        rate = round(done / max(last_event - began, 1e-9), 2)
        emit("progress", what=what, done=done, total=total, unit=unit, rate=rate)

    with yield_to(what, total, unit) as draw:

        def advance(n: int) -> None:
            nonlocal done
            with lock:
                done += n
                draw(n)
                if time.monotonic() - last_event > _EVENT_EVERY_S:
                    tell()

        yield advance
        if told != done:
            tell()


@contextlib.contextmanager
def _nothing(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda n: None


@contextlib.contextmanager
def _terminal_bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    with tqdm(total=total, desc=f"{_stage}: {what}", unit=f" {unit}", dynamic_ncols=True, mininterval=0.2) as drawn:

        def draw(n: int) -> None:
            drawn.update(n)

        global _bar
        _bar = drawn
        try:
            yield draw
        finally:
            _bar = None


@contextlib.contextmanager
def _plain_lines(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    began = last = time.monotonic()
    done = 0

    def draw(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _PLAIN_LINE_EVERY_S and 0 < done < total:
            last = now
            rate = done / (now - began)
            left_s = (total - done) / rate
            speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
            print(f"{_stage}: {what} {done}/{total} {unit}s, {speed} per second, {left_s:.0f} s left", flush=True)

    yield draw
    print(f"{_stage}: {what} {done}/{total} {unit}s in {time.monotonic() - began:.1f} s", flush=True)
