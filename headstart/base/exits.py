"""How a command of `headstart` ends: with a status, and never with a traceback for what its user did."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable

from headstart.base.errors import HeadstartError
from headstart.base.terminal import styled

_INTERRUPTED = 130  # what a shell gives for Ctrl-C


def status_of(name: str, run: Callable[[], int]) -> int:
    """Return the exit status of `run`, or after an error, told on stderr behind `name`: 1, or 130 for Ctrl-C.

    Where the reader of a pipe has seen enough, such as `head`, nothing is told. What is printed is written to the end
    before this returns, so that a full disk is not found too late to say so.
    """
    try:
        status = run()
        if sys.stdout is not None:  # None: started without one
            sys.stdout.flush()
        return status
    except HeadstartError as error:
        _tell(name, str(error))
        return 1
    except BrokenPipeError:
        _abandon_output()
        return 1
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
            raise
        _abandon_output()
        _tell(name, f"the output cannot be written: {error.strerror}. Send it to a place that has room.")
        return 1
    except KeyboardInterrupt:
        _abandon_output()
        _tell(name, "interrupted")
        return _INTERRUPTED


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
