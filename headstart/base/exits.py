"""How a command of `headstart` ends: with a status, and never with a traceback for what its user did."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from headstart.base import disk
from headstart.base.errors import HeadstartError
from headstart.base.terminal import styled

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def status_of(name: str, run: Callable[[], int]) -> int:
    """Return the exit status of `run`, or after an error, told on stderr behind `name`: 1, or 130 for Ctrl-C.

    Where the reader of a pipe has seen enough, such as `head`, nothing is told. What is printed is written to the end
    before this returns, so that a full disk is not found too late to say so.
    """
    with noting_ctrl_c() as ctrl_c:
        try:
            status = run()
            if sys.stdout is not None:  # None: started without one
                sys.stdout.flush()
            return status
        except BaseException as error:
            if ctrl_c.is_set() or isinstance(error, KeyboardInterrupt):
                _abandon_output()
                _tell(name, "interrupted")
                return _INTERRUPTED
            return _failed(name, error)


def _failed(name: str, error: BaseException) -> int:
    """Tell of an error that has a cause outside this code, and return 1; raise any other."""
    if isinstance(error, SystemExit):  # of a parser that has printed its help, and does not look whether that arrived
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as failed:
            return _failed(name, failed)
    if isinstance(error, HeadstartError):
        _tell(name, str(error))
        return 1
    if isinstance(error, BrokenPipeError):
        _abandon_output()
        return 1
    if isinstance(error, OSError) and error.filename is not None and (said := disk.of(error)):
        _tell(name, str(said))
        return 1
    full = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
    if isinstance(error, OSError) and error.filename is None and error.errno in full:
        _abandon_output()
        _tell(name, f"the output cannot be written: {error.strerror}. Send it to a place that has room.")
        return 1
    raise error


@contextlib.contextmanager
def noting_ctrl_c() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, before it does what it did: it raises KeyboardInterrupt, as a rule.

    Libraries make errors of their own of that exception: a module whose import it ended is then said to be missing.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):  # callable: not ignored
        yield pressed
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _tell(name: str, message: str) -> None:
    with contextlib.suppress(OSError):  # the reader of stderr may be gone too
        print(f"{name}: {styled(message, 'bad', sys.stderr)}", file=sys.stderr, flush=True)


def _abandon_output() -> None:
    """Let go of what cannot be printed; else Python tries again when it exits, and complains."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
