"""A real `headstart serve` on a free port, ended with the test."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

from tests.support.images import ROOT
from tests.support.orchestration import wait_for
from tests.support.processes import started

SMALL = ROOT / "tests" / "models" / "format-1"  # a model folder that answers within a millisecond
PICTURE = SMALL / "conformance" / "gray.jpg"


class Serving:
    """A server under way."""

    def __init__(self, process: Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log
        self.url = str(wait_for(self._told, 60))
        self.address = self.url.removeprefix("http://")

    def _told(self) -> str | None:
        log = self.log.read_text()
        assert self.process.poll() is None, log
        found = re.search(r"running on (http://[\d.]+:\d+)", log)
        return found and found[1]

    def get(self, path: str) -> Any:
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path) as reply:
            return str(reply.read().decode())

    def predict(self, body: bytes, path: str = "/predict", **headers: str) -> tuple[int, Any]:
        status, said, _ = self.post(path, body, **headers)
        return status, said

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
        """Return status, JSON and headers of the answer."""
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, json.loads(reply.read()), reply.headers
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read()), error.headers

    def connected(self, sends: bytes = b"", timeout_s: float = 20) -> socket.socket:
        """Return a bare connection that has sent some bytes."""
        host, _, port = self.address.partition(":")
        connection = socket.create_connection((host, int(port)), timeout=timeout_s)
        connection.sendall(sends)
        return connection

    def lines(self, path: str) -> list[dict[str, Any]]:
        """Return the access log's lines about a path."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["path"] == path]

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self.text("/metrics"), re.MULTILINE)
        return sum(map(float, found))

    def memory_mb(self) -> float:
        """Return the resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1e3


@contextmanager
def served(models: Path | str | list[Path | str], log: Path, *options: str) -> Iterator[Serving]:
    """Start a server for a model, or for several."""
    named = models if isinstance(models, list) else [models]
    command = [sys.executable, "-m", "headstart", "serve", *map(str, named), "--port", "0", *options]
    with log.open("wb") as out, started(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT) as process:
        yield Serving(process, log)
