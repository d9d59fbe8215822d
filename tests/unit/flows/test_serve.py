"""The server that `headstart schedule` starts."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from flows import server

_TALKATIVE = """\
#!{python}
import http.server, sys
sys.stderr.write("a warning\\n" * 100_000)

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Health).serve_forever()
"""


def test_a_server_that_has_logged_for_months_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talkative = tmp_path / "python"
    talkative.write_text(_TALKATIVE.format(python=sys.executable))
    talkative.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(talkative))
    monkeypatch.setattr(server, "_START_S", 10)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with server.server(port) as api:
        assert api == f"http://127.0.0.1:{port}/api"
