"""Whether a server of Prefect answers on this machine; tests/pipeline/test_server_ends.py starts real ones."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flows import server

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue"


@contextmanager
def saying(words: bytes) -> Iterator[str]:
    """Yield the address of a listener that says the same to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(words)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"


@pytest.mark.parametrize(
    ("words", "answers"),
    [(HEALTHY, True), (b"SSH-2.0-OpenSSH_9\r\n", False), (b"", False), (b"HTTP/1.1 200 OK\r\n\r\n{", False)],
)
def test_what_speaks_something_else_is_no_server(words: bytes, answers: bool) -> None:
    with saying(words) as api:
        assert server._answers(api) is answers


@pytest.mark.parametrize("listed", ["", "example.org", "example.org, 127.0.0.1"])
def test_a_server_on_this_machine_is_not_asked_for_by_a_proxy(monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, listed)
    server.pass_by_proxies()
    assert os.environ["no_proxy"].startswith(listed)
    with saying(HEALTHY) as api:
        assert server._answers(api)
