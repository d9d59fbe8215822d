"""How a stage tells what it does: to the terminal, and to whoever started it through a file of JSON lines.

With `HEADSTART_EVENTS` naming a file, every call also appends one line to it; the Prefect flow reads it. Standard
library and tqdm only: a stage imports neither prefect nor dvc.
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
_bar: Any = None  # of tqdm, while one is drawn
_writing = threading.Lock()  # lines are whole, though several threads tell something


def begin(stage: str) -> None:
    """Name the stage that speaks from here on."""
    global _stage
    _stage = stage
    emit("start", stage=stage, pid=os.getpid())


def mute() -> None:
    """Say nothing from here on but why this process stops: another one, of several that work together, speaks."""
    global _muted
    _muted = True


def is_muted() -> bool:
    """Return whether another process speaks for this one."""
    return _muted


def say(message: str) -> None:
    """Tell something that a user wants to know."""
    if _muted:
        return
    _tell("info", message, sys.stdout)


def warn(message: str) -> None:
    """Tell something that a user should look at; it goes to stderr."""
    if _muted:
        return
    _tell("warning", message, sys.stderr)


def fail(message: str, may_heal: bool = False, rejected: bool = False) -> None:
    """Tell why the stage stops; it goes to stderr.

    `may_heal`: a later try may do better. `rejected`: nothing is wrong but the model, which is worse than another.
    """
    _print(message, sys.stderr)
    emit("error", message=message, may_heal=may_heal, rejected=rejected)


def show_table(key: str, rows: Sequence[Mapping[str, object]], description: str) -> None:
    """Show rows with the same columns to whoever listens. `key`: lower case, digits, dashes; stable between runs."""
    emit("table", key=key, rows=rows, description=description)


def show_image(key: str, draw: Callable[[], bytes], description: str) -> None:
    """Show a PNG or JPEG to whoever listens; where nobody does, it is not drawn. One that fails stops no stage."""
    if not is_heard():
        return
    try:
        data = draw()
    except Exception as error:
        warn(f"the picture '{key}' could not be drawn: {error}")
        return
    emit("image", key=key, data=base64.b64encode(data).decode(), description=description)


def is_heard() -> bool:
    """Return whether somebody listens beside the terminal."""
    return bool(os.environ.get(EVENTS_VARIABLE)) and not _muted


def _tell(level: str, message: str, file: TextIO) -> None:
    if is_heard():  # whoever listens has a log, which goes to the same terminal
        emit("log", level=level, message=message)
    else:
        _print(message if level == "info" else f"{level}: {message}", file)


def _print(message: str, file: TextIO) -> None:
    line = f"{_stage}: {message}"
    if _bar is None:
        print(line, file=file, flush=True)
    else:  # above the bar, not into it
        _bar.write(line, file=file)
        file.flush()


def emit(kind: str, **values: object) -> None:
    """Append one event for the parent; a parent that cannot be told never stops a stage."""
    if is_heard():
        line = json.dumps({"kind": kind, **values}, default=_plain) + "\n"
        path = os.environ[EVENTS_VARIABLE]
        with _writing, contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(line)


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)  # numpy's numbers


@contextlib.contextmanager
def bar(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`, for any thread: a bar with rate and time left on a terminal, plain lines elsewhere."""
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
            print(f"{_stage}: {what} {done}/{total} {unit}s, {speed} a second, {left_s:.0f} s left", flush=True)

    yield draw
    print(f"{_stage}: {what} {done}/{total} {unit}s in {time.monotonic() - began:.1f} s", flush=True)
