"""A stage's messages and progress: for the terminal, and for the process that started it, as JSON lines in a file.

If `HEADSTART_EVENTS` names a file, every call also appends one line to it, which the Prefect flow reads. The module
imports only the standard library, tqdm, `errors` and `terminal`: a stage imports neither prefect nor dvc.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from headstart.base.errors import OutputError, printable
from headstart.base.terminal import styled

EVENTS_VARIABLE = "HEADSTART_EVENTS"
_PLAIN_LINE_EVERY_S = 10.0
_RATE_OVER_S = 30.0
_RATE_SAMPLES = 30
_RATE_AFTER_S = 1.0
_WORTH_A_LINE_S = 1.0
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
    message = printable(message, keep="\n")
    _print(styled(message, "bad", sys.stderr), sys.stderr)
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
    message = printable(message, keep="\n")  # names of files and labels are part of it
    if is_heard():  # the listener logs it to the same terminal
        emit("log", level=level, message=message)
    else:
        _print(message if level == "info" else f"{styled('warning:', 'warning', file)} {message}", file)


def _print(message: str, file: TextIO) -> None:
    line = f"{styled(f'{_stage}:', 'soft', file)} {message}"
    if _bar is None:
        try:
            print(line, file=file, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.errno, error.strerror) from None
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
    """Yield `advance(n)`, for any thread. A terminal gets a bar with rate and time left, other outputs plain lines.

    Work that ends without an error is done, also if `total` was more than was needed. If it took a second, a line stays
    that tells how much it was and how long it took.
    """
    on_terminal = sys.stderr.isatty()
    is_silent = _muted or (is_heard() and not on_terminal)
    shown = _nothing if is_silent else _terminal_bar if on_terminal else _plain_lines
    pace, last_event, told = _Pace(total), 0.0, (0, 0)
    lock = threading.Lock()

    def tell(of: int) -> None:
        nonlocal told
        if told == (pace.done, of):
            return
        told = pace.done, of
        rate = {"rate": round(pace.rate, 2)} if pace.rate is not None else {}
        emit("progress", what=what, done=pace.done, total=of, unit=unit, **rate)

    with shown(what, unit, pace) as draw:

        def advance(n: int) -> None:
            nonlocal last_event
            with lock:
                pace.advance(n)
                draw()
                if pace.now - last_event > _EVENT_EVERY_S:
                    last_event = pace.now
                    tell(total)

        yield advance
    if pace.done:
        tell(pace.done)
        took_s = time.monotonic() - pace.began
        if not is_silent and not is_heard() and took_s >= _WORTH_A_LINE_S:
            _print(f"{what}: {_counted(pace.done, unit)} in {took_s:.1f} s", sys.stdout)


class _Pace:
    """How much is done, at what rate, and how long the rest takes."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.began = self.now = time.monotonic()
        self._seen: deque[tuple[float, int]] = deque()  # time and `done` at times of the last `_RATE_OVER_S`

    def advance(self, n: int) -> None:
        self.now = time.monotonic()
        self.done += n
        while len(self._seen) > 1 and self._seen[1][0] < self.now - _RATE_OVER_S:
            self._seen.popleft()
        if not self._seen or self.now - self._seen[-1][0] >= _RATE_OVER_S / _RATE_SAMPLES:
            self._seen.append((self.now, self.done))

    @property
    def rate(self) -> float | None:
        """How many a second of late; None until that can be told.

        What the first call brings is not counted: it is what an earlier run left, which takes no time.
        """
        if not self._seen:
            return None
        then, already = self._seen[0]
        return (self.done - already) / (self.now - then) if self.now - then >= _RATE_AFTER_S else None

    def told(self) -> str:
        """Return rate and time left, or an empty string while they cannot be told."""
        if not self.rate:
            return ""
        speed = f"{self.rate:.0f}" if self.rate >= 10 else f"{self.rate:.1f}"
        return f", {speed} per second, {_spelled(max(0, self.total - self.done) / self.rate)} left"


def _spelled(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


@contextlib.contextmanager
def _nothing(what: str, unit: str, pace: _Pace) -> Iterator[Callable[[], None]]:
    yield lambda: None


@contextlib.contextmanager
def _terminal_bar(what: str, unit: str, pace: _Pace) -> Iterator[Callable[[], None]]:
    from tqdm import tqdm

    layout = f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {{n}}/{{total}} {unit}s{{postfix}}"
    desc = f"{styled(f'{_stage}:', 'soft', sys.stderr)} {what}"
    with tqdm(
        total=pace.total, desc=desc, bar_format=layout, dynamic_ncols=True, mininterval=0.2, leave=False
    ) as drawn:

        def draw() -> None:
            drawn.postfix = pace.told().removeprefix(", ")
            drawn.update(pace.done - drawn.n)

        global _bar
        _bar = drawn
        try:
            yield draw
        finally:
            _bar = None


@contextlib.contextmanager
def _plain_lines(what: str, unit: str, pace: _Pace) -> Iterator[Callable[[], None]]:
    last = pace.began

    def draw() -> None:
        nonlocal last
        # Rarer as the work grows longer: a night's log stays readable.
        if pace.now - last >= max(_PLAIN_LINE_EVERY_S, (pace.now - pace.began) / 10) and 0 < pace.done < pace.total:
            last = pace.now
            _print(f"{what}: {pace.done} of {_counted(pace.total, unit)}{pace.told()}", sys.stdout)

    yield draw
