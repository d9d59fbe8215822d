"""Runs a Python module that must not outlive the process that started it: `python leash.py PID MODULE [ARGUMENT ...]`.

PID is the process that starts this. However that ends, `kill -9` included, this one ends within seconds. Only the
standard library is imported.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

_WATCH_S = 0.5
_GRACE_S = 5.0
_TERMINATED = 143  # what a shell gives for SIGTERM


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)  # the module may want to tidy up
    time.sleep(_GRACE_S)
    os._exit(_TERMINATED)


def main() -> None:
    """Run the module as `python -m` does, and watch over the parent meanwhile."""
    parent, *sys.argv = sys.argv[1:]
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
