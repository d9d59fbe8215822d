"""What bounds memory: pixels that are decoded at a time, bodies that are held, requests that wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fastapi import HTTPException, Request

from headstart.images.limited import Pixels
from headstart.serving.limits import Bodies, Limits
from headstart.serving.models import Served
from headstart.serving.workers import Workers


def request_of(*parts: bytes, pause_s: float = 0) -> Request:
    async def stream() -> AsyncIterator[bytes]:
        for part in parts:
            await asyncio.sleep(pause_s)
            yield part

    return cast(Request, SimpleNamespace(headers={}, stream=stream))


async def read(bodies: Bodies, request: Request) -> bytes:
    with bodies.held() as body:
        return await body.read(request)


def test_threads_never_hold_more_pixels_than_are_allowed_at_a_time() -> None:
    pixels, held, most = Pixels(10), 0, 0
    lock = threading.Lock()

    def take(n_pixels: int) -> None:
        nonlocal held, most
        with pixels.taken(n_pixels):
            with lock:
                held += n_pixels
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= n_pixels

    threads = [threading.Thread(target=take, args=(n,)) for n in (10, 3, 4, 7, 1, 10, 2, 6) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert 7 < most <= 10


def test_bodies_count_until_they_are_answered_and_a_full_house_refuses() -> None:
    bodies = Bodies(Limits(max_mb=2, held_mb=3))

    async def run() -> None:
        with bodies.held() as first:
            assert len(await first.read(request_of(bytes(1_000_000), bytes(900_000)))) == 1_900_000
            assert bodies.n_held == 1_900_000
            with pytest.raises(HTTPException) as refused:
                await read(bodies, request_of(bytes(1_000_000), bytes(200_000)))
            assert (refused.value.status_code, refused.value.headers["Retry-After"]) == (503, "1")  # type: ignore[index]
            assert bodies.n_held == 1_900_000
        assert bodies.n_held == 0
        assert await read(bodies, request_of(b"a", b"b")) == b"ab"

    asyncio.run(run())


def test_large_bodies_that_are_held_back_leave_room_for_small_ones() -> None:
    bodies = Bodies(Limits(max_mb=20, held_mb=128))

    async def run() -> None:
        with contextlib.ExitStack() as held:
            n_refused = 0
            for _ in range(10):  # as ten clients that send 19.9 of 20 MB; all were let in before the first had sent
                body = held.enter_context(bodies.held())
                try:
                    await body.read(request_of(*[bytes(100_000)] * 199))
                except HTTPException:
                    n_refused += 1
            assert n_refused > 4
            assert len(await read(bodies, request_of(bytes(2_000_000)))) == 2_000_000

    asyncio.run(run())


def test_a_body_has_so_many_seconds_whatever_arrives() -> None:
    bodies = Bodies(Limits(send_seconds=0.2))
    with pytest.raises(HTTPException) as refused:
        asyncio.run(read(bodies, request_of(*[b"x"] * 100, pause_s=0.05)))
    assert refused.value.status_code == 408
    assert bodies.n_held == 0


class Slow:
    """A model that takes a while, in place of a `Served`."""

    def __init__(self, seconds: float) -> None:
        self.pieces = None
        self.alone = self.among = self
        self._seconds = seconds

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(self._seconds)
        return {"probabilities": images[:, 0, 0, 0]}


def images() -> Iterator[np.ndarray]:
    yield np.zeros((1, 1, 1, 3), np.uint8)
    yield np.ones((2, 1, 1, 3), np.uint8)


async def statuses(workers: Workers, model: Slow, n_requests: int) -> list[Any]:
    one = (workers.run(cast(Served, model), images) for _ in range(n_requests))
    found = await asyncio.gather(*one, return_exceptions=True)
    return [each.status_code if isinstance(each, HTTPException) else each for each in found]


def test_images_of_one_request_are_answered_in_order_and_too_many_requests_refused() -> None:
    async def run() -> None:
        workers = Workers(Limits(max_waiting=3), batch_ms=0)
        found = await statuses(workers, Slow(0.05), 5)
        assert found[3:] == [503, 503]
        for done in found[:3]:
            assert done.outputs["probabilities"].tolist() == [0, 1, 1]
            assert done.compute_s >= 0.1 and done.n_together == 2
        await asyncio.sleep(0.01)
        assert workers.n_waiting == 0
        workers.close()

    asyncio.run(run())


def test_what_cannot_be_answered_in_time_is_refused_and_later_at_once() -> None:
    async def run() -> None:
        workers = Workers(Limits(answer_seconds=0.35), batch_ms=0)
        slow = Slow(0.1)
        await statuses(workers, slow, 1)
        n_requests = 40
        began = time.monotonic()
        found = await statuses(workers, slow, n_requests)
        assert time.monotonic() - began < 1
        assert found.count(503) >= n_requests - 8
        while workers.n_waiting:
            await asyncio.sleep(0.05)
        assert time.monotonic() - began < 1.5  # the queue went with its clients
        workers.close()

    asyncio.run(run())
