"""Connections with limits: how many there may be, how long one may take to send a header, and to read an answer.

uvicorn has no such limits. The time of a body is the application's matter (headstart/serving/limits.py).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.serving.limits import Limits

_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
_TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\n"


class LimitedConnection(H11Protocol):
    """A connection that is closed if it keeps the server waiting for too long."""

    limits: ClassVar[Limits]
    of_address: ClassVar[Counter[str]]  # how many connections each client address has

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many, else begin to wait for a header."""
        self._timer: asyncio.TimerHandle | None = None
        self._waits_since = self.loop.time()
        self._has_sent = False
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self.of_address[self._address] += 1
        allowed = self.limits.max_per_address
        if allowed and self.of_address[self._address] > allowed:
            self._refuse(_TOO_MANY, f"more than {allowed} connections from one address")
        elif len(self.connections) > self.limits.max_connections and not self._makes_room():
            self._refuse(_BUSY, "all connections are taken")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_waiting()
        self.of_address[self._address] -= 1
        if not self.of_address[self._address]:
            del self.of_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; once a header is whole, the application answers for the time."""
        if self.transport.is_closing():
            return
        self._has_sent = True
        super().data_received(data)
        if self._is_at_work() and not self.flow.write_paused:
            self._stop_waiting()

    def pause_writing(self) -> None:
        """Begin to wait: the client does not read its answer."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Go on with the answer, most of which the client has read."""
        super().resume_writing()
        if self._is_at_work():
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next header, or for the rest of a body that was answered before its end."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self._is_at_work():
            self._has_sent = False
            self._wait()

    def _is_at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._stop_waiting()
        self._waits_since = self.loop.time()
        self._timer = self.loop.call_later(self.limits.send_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        if self.flow.write_paused:
            self.transport.abort()  # to close it would wait until what is written is read
        elif self._has_sent and self.conn.their_state is h11.IDLE:
            self._refuse(_TOO_SLOW, f"the header did not arrive within {self.limits.send_seconds:g} seconds")
        else:
            self.transport.close()

    def _makes_room(self) -> bool:
        """Close the connection that has kept the server waiting for longest; return whether there was one."""
        others: list[Any] = [each for each in self.connections if each is not self]
        waiting = [each for each in others if each._timer is not None and not each.transport.is_closing()]
        if not waiting:
            return False
        oldest = min(waiting, key=lambda each: each._waits_since)
        oldest._give_up()
        self.connections.discard(oldest)  # at once: the loop may accept many before it tells of the closed one
        return True

    def _refuse(self, status: bytes, reason: str) -> None:
        """Answer without the application, and close."""
        self._stop_waiting()
        body = f"{reason}\n".encode()
        header = b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        self.transport.write(status + header % len(body) + body)
        self.transport.close()


def limited(limits: Limits) -> type[LimitedConnection]:
    """Return the protocol of a server with these limits."""
    return type("Connection", (LimitedConnection,), {"limits": limits, "of_address": Counter()})
