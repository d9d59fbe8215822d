"""Serves files of DVC's cache by their MD5, so that a run's page can link to the report and the model of that very run.

A name in the cache is the digest of the content. Who does not know a file's digest cannot ask for it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ADDRESS = re.compile(r"/([0-9a-f]{2})([0-9a-f]{30})/([\w.-]+)")
_TYPES = {".html": "text/html; charset=utf-8"}


@contextlib.contextmanager
def served(cache: Path, port: int) -> Iterator[str]:
    """Yield the address at which `/MD5/NAME` is that file of the cache; another port is taken if `port` is not free."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = _ADDRESS.fullmatch(self.path)
            path = cache / found[1] / found[2] if found else None
            if path is None or not path.is_file():
                self.send_error(404, "Not found", "This file is not, or is no longer, in DVC's cache on this machine.")
                return
            name = Path(self.path).name
            self.send_response(200)
            self.send_header("Content-Type", _TYPES.get(Path(name).suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file, contextlib.suppress(ConnectionError):
                shutil.copyfileobj(file, self.wfile)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal is Prefect's."""

    try:
        http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError:
        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
