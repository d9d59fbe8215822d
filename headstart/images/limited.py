"""Reads image files of strangers within limits: pixels by the header, seconds and memory in a worker.

Where the header tells what decoding costs, as for photographs, it is done in the calling thread. All other files go to
a process that can be killed, and that is used again. Whatever the number of threads, the images that are decoded at a
time have together no more pixels than one may have.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from headstart.base.cores import n_cores
from headstart.images.decoding import Decoded, decode
from headstart.images.deep import ALL_BITS
from headstart.images.formats import UnreadableError
from headstart.images.headers import examined
from headstart.images.worker import OUT_OF_MEMORY, Job, read_exactly, read_line

_MOST_WORKERS = 4
_SURE_PX_A_SECOND = 2_500_000  # a slow machine decodes ten times as many, in any format
_WALL = 10  # multiple of the processor time after which a worker is killed, for it may be stuck or the machine busy


class Limits(NamedTuple):
    """What reading one image may take; what exceeds them is an UnreadableError."""

    max_pixels: int = 150_000_000  # an A4 page at 1200 dpi has 139 million
    max_seconds: int = 30  # of processor time


class Facts(NamedTuple):
    """What is known of an image without its pixels."""

    format: str
    width_px: int
    height_px: int
    bits: int | None
    damage: str | None


class Pixels:
    """Lets threads hold at a time no more than one may have, so that cores do not multiply memory."""

    def __init__(self, at_a_time: int) -> None:
        self._all = self._free = at_a_time
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, n_pixels: int) -> Iterator[None]:
        """Wait until there is room for `n_pixels`, at most the number in all, and hold it."""
        n_pixels = min(n_pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= n_pixels)
            self._free -= n_pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += n_pixels
                self._changed.notify_all()


class Reader:
    """Reads files in any number of threads; a context manager that ends its workers."""

    def __init__(self, limits: Limits, pixels: Pixels | None = None) -> None:
        """`pixels`: the room for them, if others share it."""
        self.limits = limits
        self._pixels = pixels or Pixels(limits.max_pixels)
        self._workers: list[_Worker] = []  # idle ones
        self._n_workers = threading.Semaphore(min(n_cores(), _MOST_WORKERS))

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        while self._workers:
            self._workers.pop().close()

    @contextmanager
    def decoded(self, data: bytes, bits: int = ALL_BITS) -> Iterator[Decoded]:
        """Yield what `decode` returns; its pixels count until the end of the context. UnreadableError at any limit."""
        with self._room(data) as is_plain:
            if is_plain:
                yield decode(data, bits, self.limits.max_pixels)
            else:
                facts, rgb = self._by_worker(data, bits, with_pixels=True)
                assert rgb is not None
                yield Decoded(rgb, facts.format, facts.bits, facts.damage)

    def facts(self, data: bytes, bits: int = ALL_BITS) -> Facts:
        """Decode an image, and return what is known of it; UnreadableError at any limit."""
        with self._room(data) as is_plain:
            if not is_plain:
                return self._by_worker(data, bits, with_pixels=False)[0]
            image = decode(data, bits, self.limits.max_pixels, in_srgb=False)
            height_px, width_px = image.rgb.shape[:2]
            return Facts(image.format, width_px, height_px, image.bits, image.damage)

    @contextmanager
    def _room(self, data: bytes) -> Iterator[bool]:
        """Check the header, wait for room, and yield whether the header tells what decoding costs."""
        header = examined(data)
        header.check(self.limits.max_pixels)
        with self._pixels.taken(header.n_pixels or self.limits.max_pixels):
            yield header.is_plain and header.n_pixels <= _SURE_PX_A_SECOND * self.limits.max_seconds

    def _by_worker(self, data: bytes, bits: int, with_pixels: bool) -> tuple[Facts, np.ndarray | None]:
        job = Job(len(data), self.limits.max_pixels, self.limits.max_seconds, bits, with_pixels)
        with self._n_workers:
            worker = self._workers.pop() if self._workers else _Worker()
            try:
                answer = worker.answer(job, data)
            except BaseException as error:
                if isinstance(error, UnreadableError) and worker.is_alive:
                    self._workers.append(worker)
                else:
                    worker.close()
                raise
            self._workers.append(worker)
        return answer


class _Worker:
    """A process that runs headstart/images/worker.py."""

    def __init__(self) -> None:
        self.is_alive, self._is_late = True, False
        same_code = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headstart.images.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders write warnings about broken files
            env=same_code,
        )

    def answer(self, job: Job, data: bytes) -> tuple[Facts, np.ndarray | None]:
        """Return what the worker found; UnreadableError if it is no usable image, or the worker dies of it."""
        jobs, answers = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        watch = threading.Timer(_WALL * job.max_seconds, self._stop)
        watch.start()
        try:
            jobs.write(job.packed())
            jobs.write(data)
            jobs.flush()
            told = json.loads(read_line(answers))
            if "error" in told:
                raise UnreadableError(told["error"])
            facts = Facts(**told)
            if not job.with_pixels:
                return facts, None
            values = read_exactly(answers, facts.height_px * facts.width_px * 3)
            return facts, np.frombuffer(values, np.uint8).reshape(facts.height_px, facts.width_px, 3)
        except (EOFError, OSError):
            self.is_alive = False
            raise UnreadableError(self._why_dead(job)) from None
        finally:
            watch.cancel()

    def _stop(self) -> None:
        self._is_late = True
        self._process.kill()

    def _why_dead(self, job: Job) -> str:
        ended = self._process.wait()
        if self._is_late or ended == -getattr(signal, "SIGXCPU", 0):
            return f"decoding takes more than {job.max_seconds} seconds"
        if ended == OUT_OF_MEMORY:
            return "it takes more memory than its pixels account for"
        return f"the decoder died of it (status {ended})"

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()
