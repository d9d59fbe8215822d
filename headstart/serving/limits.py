"""What a client may ask of the server, so that neither memory nor a good client's time depends on bad ones."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

_THROWN_AWAY = 5  # multiple of the limit up to which a body is read; a longer one is cut off
_SMALL_SHARE = 32  # of the room for bodies that a small one takes at most: 4 of 128 MB
GONE = 499  # in log and metrics: the client hung up before it had an answer. nginx's number; it is never sent


class Limits(NamedTuple):
    """Of one server. What exceeds them is refused with a status of its own."""

    max_mb: int = 20  # of a request's body: 413
    max_pixels: int = 50_000_000  # of an image, by its header, and of all that are being decoded at a time: 413
    max_seconds: int = 10  # of processor time, to decode an image: 422
    max_images: int = 64  # of one request of the Open Inference Protocol: 413
    send_seconds: float = 20  # for a request's header, and again for its body: 408; without reading an answer: closed
    answer_seconds: float = 30  # from the body's end to the answer: 503
    max_waiting: int = 128  # requests that wait for the model or are in it: 503
    max_connections: int = 512  # the one that has waited longest is closed for a new one; 503 if all are at work
    max_per_address: int = 0  # connections of one client address: 429. 0: any number, for a proxy is one address
    held_mb: int = 128  # of all bodies that are being sent or wait: 503


def refused(status: int, reason: str, after_s: float | None = None, closes: bool = False) -> HTTPException:
    """Return the error to raise. `after_s`: when to try again. `closes`: the connection is of no further use."""
    headers = {} if after_s is None else {"Retry-After": str(max(1, math.ceil(after_s)))}
    return HTTPException(status, reason, headers | ({"Connection": "close"} if closes else {}))


class Bodies:
    """Reads the bodies of requests, none larger than its limit, and all together not larger than theirs."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.n_held = 0  # bytes

    @contextmanager
    def held(self) -> Iterator[Body]:
        """Yield a body to fill; its bytes count until the end of the context."""
        body = Body(self, self._limits)
        try:
            yield body
        finally:
            self.n_held -= body.n_held


class Body:
    """The body of one request."""

    def __init__(self, bodies: Bodies, limits: Limits) -> None:
        self._bodies, self._limits = bodies, limits
        self.n_held = 0

    async def read(self, request: Request) -> bytes:
        """Return the body; HTTPException 413, 408 or 503 if it is too large, too slow, or too much beside others.

        A client that is still sending when the connection closes never sees the status, so some of what is too large
        is read and discarded. ClientDisconnect if the client hangs up.
        """
        limits = self._limits
        limit = limits.max_mb * 1_000_000
        too_large = (
            f"more than {limits.max_mb} MB. Send a smaller file, or start `headstart serve` with a larger --max-mb."
        )
        announced = int(request.headers.get("content-length", 0))  # the server has checked that it is a number
        asks_first = "expect" in request.headers
        if announced > _THROWN_AWAY * limit or (announced > limit and asks_first):
            raise refused(413, too_large)
        self._check_room(min(announced, limit))  # before it is sent
        body, n_bytes = bytearray(), 0
        try:
            async with asyncio.timeout(limits.send_seconds):
                async for part in request.stream():
                    n_bytes += len(part)
                    if n_bytes <= limit:
                        self._take(len(part))
                        body += part
                    elif n_bytes > _THROWN_AWAY * limit:
                        break
        except TimeoutError:
            if n_bytes > limit:
                raise refused(413, too_large, closes=True) from None
            raise refused(
                408, f"the body did not arrive within {limits.send_seconds:g} seconds. Send it faster.", closes=True
            ) from None
        if n_bytes > limit:
            raise refused(413, too_large)
        return bytes(body)

    def _take(self, n_bytes: int) -> None:
        self._check_room(n_bytes)
        self._bodies.n_held += n_bytes
        self.n_held += n_bytes

    def _check_room(self, n_bytes: int) -> None:
        """Raise HTTPException 503 unless there is room for so many more bytes.

        A quarter of the room is for small bodies alone: a few clients that hold back the end of large ones do not keep
        out the others.
        """
        room = self._limits.held_mb * 1_000_000
        if self.n_held + n_bytes > room / _SMALL_SHARE:
            room = 3 * room // 4
        if self._bodies.n_held + n_bytes > room:
            raise refused(503, "the server holds as many requests as it can. Try again.", after_s=1, closes=True)


__all__ = ["GONE", "Bodies", "ClientDisconnect", "Limits", "refused"]
