"""A real Dask scheduler and real worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock

from tests.support.images import ROOT


class Cluster:
    """A scheduler and worker processes on this machine."""

    def __init__(self, log: Path, n_workers: int = 2, port: int = 0) -> None:
        self._log = log.open("w")
        scheduler = self._start("scheduler", "--port", str(port), "--no-dashboard")
        self.address = _said(log, "Scheduler at:").rpartition("//")[2]
        self.workers = [self._started_worker() for _ in range(n_workers)]
        self._scheduler, self._replacing = scheduler, Lock()

    def replace(self, number: int) -> None:
        """Kill a worker, and start another in its place."""
        with self._replacing:
            self.workers[number].kill()
            self.workers[number].wait()
            self.workers[number] = self._started_worker()

    def _started_worker(self) -> subprocess.Popen[bytes]:
        return self._start("worker", f"tcp://{self.address}", "--nthreads", "1", "--no-dashboard", "--no-nanny")

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._log_folder, env=environment)

    @property
    def _log_folder(self) -> Path:
        return Path(self._log.name).parent

    def stop(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()
        self._log.close()


def _said(log: Path, words: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if words in line:
                return line.strip()
        time.sleep(0.1)
    raise AssertionError(log.read_text())
