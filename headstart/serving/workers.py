"""The threads that decode images and run the network, and the queue before them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from headstart.base.cores import n_cores
from headstart.serving.limits import Limits, refused
from headstart.serving.models import Served

MAX_BATCH = 16  # more images at a time only use memory: docs/performance.md
_RECENT = 0.05  # weight of the newest request in the mean time of one

Images = Callable[[], Iterator[np.ndarray]]  # yields uint8 [N, H, W, 3], decoded when it is asked for


class Done(NamedTuple):
    """The model's outputs for a request, and what they took."""

    outputs: dict[str, np.ndarray]  # each with a row an image
    queue_s: float
    compute_s: float
    n_together: int  # images that were in the network at a time


@dataclass
class _Batch:
    """Requests that go through the network together."""

    served: Served
    pixels: list[np.ndarray] = field(default_factory=list)
    waiting: list[asyncio.Future[tuple[dict[str, np.ndarray], float]]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None

    @property
    def n_images(self) -> int:
        return sum(map(len, self.pixels))


class Workers:
    """As many threads as there are cores. All but the constructor's and the threads' code runs in the event loop."""

    def __init__(self, limits: Limits, batch_ms: float) -> None:
        """`batch_ms`: how long an image waits for others before the network; 0: none waits."""
        self._limits, self._batch_s = limits, batch_ms / 1e3
        self._n_threads = n_cores()
        self._crowd = max(2, self._n_threads // 2)  # requests at a time from which each takes one core alone
        self._pool = ThreadPoolExecutor(self._n_threads, "model")
        self._mean_s = 0.0  # of a thread, for one request
        self._batches: dict[Served, _Batch] = {}
        self.n_waiting = 0  # requests in the queue or at work

    def close(self) -> None:
        """Finish what is at work."""
        self._pool.shutdown(cancel_futures=True)

    def check_room(self) -> None:
        """Raise 503 if as many requests wait as may, or too many for the time in which they must be answered."""
        if not self.n_waiting:
            return
        after_s = self.n_waiting * self._mean_s / self._n_threads
        is_too_long = self.n_waiting > self._n_threads and after_s > self._limits.answer_seconds / 2
        if is_too_long or self.n_waiting >= self._limits.max_waiting:
            raise refused(503, f"{self.n_waiting} requests are waiting already. Try again.", after_s)

    async def run(self, served: Served, images: Images) -> Done:
        """Return the outputs for all images; 503 if there is no room, or the time is over."""
        self.check_room()
        began = time.monotonic()
        deadline = began + self._limits.answer_seconds
        self.n_waiting += 1
        is_left_to_a_thread = False
        try:
            async with asyncio.timeout(self._limits.answer_seconds):
                if served.pieces is None or self.n_waiting == 1:  # alone, it would wait for nobody
                    future = self._pool.submit(self._through, served, images, deadline)
                    is_left_to_a_thread = True
                    self._count_down_after(future)
                    outputs, started, n_together = await asyncio.wrap_future(future)
                    done = Done(outputs, started - began, time.monotonic() - started, n_together)
                else:
                    done = await self._in_a_batch(served, images, began, deadline)
        except TimeoutError:
            raise refused(
                503, f"no answer within {self._limits.answer_seconds:g} seconds. Try again.", after_s=1
            ) from None
        finally:
            if not is_left_to_a_thread:
                self.n_waiting -= 1
        self._mean_s += _RECENT * (done.compute_s - self._mean_s) if self._mean_s else done.compute_s
        return done

    def _count_down_after(self, future: Future[Any]) -> None:
        """Let a request count until its thread is free, though nobody may be waiting for it any more."""
        loop = asyncio.get_running_loop()

        def count_down() -> None:
            self.n_waiting -= 1

        future.add_done_callback(lambda _: None if loop.is_closed() else loop.call_soon_threadsafe(count_down))

    def _through(self, served: Served, images: Images, deadline: float) -> tuple[dict[str, np.ndarray], float, int]:
        """In a thread: return the outputs of all images, when it began, and the most images at a time."""
        started = time.monotonic()
        found, n_together = [], 0
        for each in _in_time(images(), deadline):
            model = served.alone if self.n_waiting < self._crowd else served.among
            found.append(model.outputs(each))
            n_together = max(n_together, len(each))
        return _joined(found), started, n_together

    # In batches: a thread decodes and resizes; then the image waits for others, and a thread takes them all.

    async def _in_a_batch(self, served: Served, images: Images, began: float, deadline: float) -> Done:
        loop = asyncio.get_running_loop()
        pixels, resized_s = await loop.run_in_executor(self._pool, _resized, served, images, deadline)
        batch = self._batches.get(served)
        if batch is None:
            batch = self._batches[served] = _Batch(served)
            batch.timer = loop.call_later(self._batch_s, self._send, batch)
        outputs: asyncio.Future[tuple[dict[str, np.ndarray], float]] = loop.create_future()
        first, n_images = batch.n_images, len(pixels)
        batch.pixels.append(pixels)
        batch.waiting.append(outputs)
        if batch.n_images >= MAX_BATCH or len(batch.waiting) >= self.n_waiting:  # nobody else can come
            self._send(batch)
        together, network_s = await outputs
        rows = {name: array[first : first + n_images] for name, array in together.items()}
        compute_s = resized_s + network_s
        return Done(rows, time.monotonic() - began - compute_s, compute_s, batch.n_images)

    def _send(self, batch: _Batch) -> None:
        """Give the batch to a thread; later images begin a new one."""
        if self._batches.get(batch.served) is batch:
            del self._batches[batch.served]
        if batch.timer is not None:
            batch.timer.cancel()
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._pool, _network, batch)

        def hand_out(done: asyncio.Future[tuple[dict[str, np.ndarray], float]]) -> None:
            for waiting in batch.waiting:
                if waiting.done():
                    continue  # its client's time was over
                if done.cancelled():
                    waiting.cancel()
                elif error := done.exception():
                    waiting.set_exception(error)
                else:
                    waiting.set_result(done.result())

        running.add_done_callback(hand_out)


def _resized(served: Served, images: Images, deadline: float) -> tuple[np.ndarray, float]:
    started = time.monotonic()
    assert served.pieces is not None
    pixels = np.concatenate([served.pieces.pixels(each) for each in _in_time(images(), deadline)])
    return pixels, time.monotonic() - started


def _network(batch: _Batch) -> tuple[dict[str, np.ndarray], float]:
    started = time.monotonic()
    assert batch.served.pieces is not None
    outputs = batch.served.pieces.outputs(np.concatenate(batch.pixels))
    return outputs, time.monotonic() - started


def _in_time(images: Iterable[np.ndarray], deadline: float) -> Iterator[np.ndarray]:
    """Yield the images; TimeoutError once nobody waits for them any more."""
    iterator = iter(images)
    while True:
        if time.monotonic() > deadline:
            raise TimeoutError
        try:
            image = next(iterator)
        except StopIteration:
            return
        yield image


def _joined(found: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return found[0] if len(found) == 1 else {name: np.concatenate([each[name] for each in found]) for name in found[0]}
