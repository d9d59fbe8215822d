"""`headstart serve` under more load than it can bear, and among hostile clients. Trials of minutes; they need wrk."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.support.images import encoded, photograph
from tests.support.serving import PICTURE, SMALL, Serving, served

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk on the PATH")]

SCRIPT = """
local file = io.open("{body}", "rb"); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"; wrk.path = "/predict"
local statuses, threads = {{}}, {{}}
function setup(thread) table.insert(threads, thread) end
function init() counts = {{[200] = 0, [503] = 0, [0] = 0}} end
function response(status)
  if not counts[status] then status = 0 end
  counts[status] = counts[status] + 1
  answered, refused, other = counts[200], counts[503], counts[0]
end
function done(summary)
  local a, r, o = 0, 0, 0
  for _, each in ipairs(threads) do
    a, r, o = a + each:get("answered"), r + each:get("refused"), o + each:get("other")
  end
  local e = summary.errors
  print(string.format("answered=%d refused=%d other=%d broken=%d", a, r, o, e.connect + e.read + e.write + e.timeout))
end
"""


def load(serving: Serving, body: Path, clients: int, seconds: int) -> dict[str, int]:
    """Return how many requests were answered, refused by 503, otherwise, and how many connections broke."""
    script = body.with_suffix(".lua")
    script.write_text(SCRIPT.format(body=body))
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "40s", "-s", str(script), serving.url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", said)}


def test_ten_times_the_capacity_for_a_minute_neither_grows_memory_nor_breaks_anything(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(encoded(photograph(1, 1500, 2000), "JPEG"))
    with served(SMALL, tmp_path / "log") as serving:
        load(serving, tmp_path / "body", 8, 3)
        seconds = 10
        capacity = load(serving, tmp_path / "body", 64, seconds)
        assert capacity["refused"] == capacity["other"] == capacity["broken"] == 0
        per_second = capacity["answered"] / seconds
        before_mb = serving.memory_mb()
        health_s: list[float] = []
        with repeated(lambda: health_s.append(_took_s(lambda: serving.get("/health"))), 1):
            found = load(serving, tmp_path / "body", 400, 60)
        offered = (found["answered"] + found["refused"]) / 60
        grown_mb = serving.memory_mb() - before_mb
        print(
            f"capacity {per_second:.0f}/s, offered {offered:.0f}/s, {found}, memory {before_mb:.0f} {grown_mb:+.0f} MB"
        )
        print(f"health: {max(health_s):.2f} s at most")
        assert offered >= 10 * per_second
        assert found["other"] == found["broken"] == 0
        assert found["answered"] / 60 > per_second / 4
        assert grown_mb < 150
        assert max(health_s) < 5
        assert serving.predict(PICTURE.read_bytes())[0] == 200


def test_fifty_hostile_clients_for_two_minutes_leave_a_good_one_its_answers(tmp_path: Path) -> None:
    with served(SMALL, tmp_path / "log", "--send-seconds", "10") as serving:
        good = encoded(photograph(1, 1500, 2000), "JPEG")
        before_mb = serving.memory_mb()
        undisturbed: list[float] = []
        disturbed: list[float] = []
        memory_mb: list[float] = []
        with repeated(lambda: memory_mb.append(serving.memory_mb()), 0.5):
            for _ in range(4):  # by turns, since other programs use the machine too
                undisturbed += _good_client(serving, good, 30)
                # In a process of their own: their threads must not keep the good client waiting.
                hostile = multiprocessing.get_context("spawn").Process(target=_attack, args=(serving.address,))
                hostile.start()
                try:
                    disturbed += _good_client(serving, good, 32)
                finally:
                    hostile.kill()
                    hostile.join()
        peak_mb = max(memory_mb)
        p99 = [float(np.percentile(each, 99)) for each in (undisturbed, disturbed)]
        print(f"p99 {1e3 * p99[0]:.0f} ms undisturbed ({len(undisturbed)}), {1e3 * p99[1]:.0f} ms ({len(disturbed)})")
        print(f"memory {before_mb:.0f} MB, at most {peak_mb:.0f} MB")
        assert peak_mb - before_mb < 300
        assert p99[1] < 3 * p99[0]
        assert "Traceback" not in serving.log.read_text()


def _good_client(serving: Serving, body: bytes, seconds: float) -> list[float]:
    """Return the seconds of each answer of a client that asks ten times a second."""
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        status, said = serving.predict(body)
        assert status == 200, said
        took.append(time.monotonic() - began)
        time.sleep(max(0, 0.1 - took[-1]))
    return took


def _took_s(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


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


# Hostile clients: ten of each kind.


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
