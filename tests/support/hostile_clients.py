"""Fifty hostile clients of `headstart serve`, ten of each kind, and a good one beside them."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np

from tests.support.images import encoded, photograph
from tests.support.serving import Serving


class Measured(NamedTuple):
    """What a good client and the server's memory were like, in one run."""

    undisturbed_s: list[float]  # of each answer
    disturbed_s: list[float]
    before_mb: float
    peak_mb: float
    n_refused: tuple[int, int]  # of a good client's requests, or its connection was closed: alone, and among them

    @property
    def p99_s(self) -> tuple[float, float]:
        """Undisturbed, and among hostile clients."""
        return float(np.percentile(self.undisturbed_s, 99)), float(np.percentile(self.disturbed_s, 99))


def measured(serving: Serving, turns: int = 4, seconds: float = 30) -> Measured:
    """Let a good client ask alone and among hostile ones, by turns, since other programs use the machine too."""
    good, before_mb = encoded(photograph(1, 1500, 2000), "JPEG"), serving.memory_mb()
    undisturbed: list[float] = []
    disturbed: list[float] = []
    memory_mb: list[float] = []
    n_refused = [0, 0]
    with repeated(lambda: memory_mb.append(serving.memory_mb()), 0.5):
        for _ in range(turns):
            n_refused[0] += _good_client(serving, good, seconds, undisturbed)
            # In a process of their own: their threads must not keep the good client waiting.
            hostile = multiprocessing.get_context("spawn").Process(target=_attack, args=(serving.address,))
            hostile.start()
            try:
                n_refused[1] += _good_client(serving, good, seconds + 2, disturbed)
            finally:
                hostile.kill()
                hostile.join()
    return Measured(undisturbed, disturbed, before_mb, max(memory_mb), (n_refused[0], n_refused[1]))


def _good_client(serving: Serving, body: bytes, seconds: float, took_s: list[float]) -> int:
    """Ask ten times a second; add the seconds of each answer to `took_s`, and return how many requests had none."""
    n_refused = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            status, _ = serving.predict(body)
        except OSError:
            status = 0
        took = time.monotonic() - began
        if status == 200:
            took_s.append(took)
        else:
            n_refused += 1
        time.sleep(max(0, 0.1 - took))
    return n_refused


@contextmanager
def repeated(call: Callable[[], object], every_s: float) -> Iterator[None]:
    """Call again and again in a thread while the context lasts."""
    ends = threading.Event()

    def run() -> None:
        while not ends.wait(every_s):
            call()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _attack(address: str) -> None:
    kinds = (_half_headers, _dripping_body, _large_bodies, _bombs, _hang_ups)
    threads = [threading.Thread(target=kinds[number % 5], args=(address,)) for number in range(50)]
    for thread in threads:
        thread.start()


HEADER = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


def _connected(address: str, sends: bytes) -> socket.socket:
    host, _, port = address.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(sends)
    return connection


def _half_headers(address: str) -> None:
    """Hold a hundred connections whose headers never end."""
    held = []
    while True:
        with suppress(OSError):
            held.append(_connected(address, b"POST /predict HTTP/1.1\r\nHost: x\r\n"))
        if len(held) > 100:
            held.pop(0).close()
        time.sleep(0.05)


def _dripping_body(address: str) -> None:
    while True:
        with suppress(OSError), _connected(address, HEADER % 1000) as one:
            while True:
                one.sendall(b"x")
                time.sleep(0.5)


def _large_bodies(address: str) -> None:
    """Send 19.9 of 20 MB, and hold the rest back."""
    while True:
        with suppress(OSError), _connected(address, HEADER % 20_000_000 + bytes(19_900_000)) as one:
            one.recv(1)
        time.sleep(1)


def _bombs(address: str) -> None:
    bomb = encoded(np.zeros((1, 1, 3), np.uint8), "GIF")
    bomb = bomb[:6] + b"\xff\xff\xff\xff" + bomb[10:]  # claims 65535 x 65535 pixels
    while True:
        with suppress(OSError), _connected(address, HEADER % len(bomb) + bomb) as one:
            one.recv(1)
        time.sleep(0.2)


def _hang_ups(address: str) -> None:
    while True:
        with suppress(OSError):
            _connected(address, HEADER % 1000 + b"x").close()
        time.sleep(0.1)
