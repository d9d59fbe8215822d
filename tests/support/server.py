"""An HTTP server on this machine, in place of those that publish weights or images."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Files over HTTP on this machine, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}  # of the next answers; 200 after them
        self.asked: list[str] = []
        self.posted: list[str] = []
        self.promise_more = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def do_POST(self) -> None:
                server.posted.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                server.asked.append(f"{self.command} {self.path}")
                data = server.files.get(self.path)
                redirect = server.redirects.get(self.path)
                failures = server.statuses.get(self.path)
                status = 302 if redirect else 200 if data is not None else 404
                self.send_response(failures.pop(0) if failures else status)
                for name, value in server.headers.get(self.path, {}).items():
                    self.send_header(name, value)
                if redirect:
                    self.send_header("Location", redirect)
                self.send_header("Content-Length", str(len(data or b"") + server.promise_more))
                self.end_headers()
                if with_body and data:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
