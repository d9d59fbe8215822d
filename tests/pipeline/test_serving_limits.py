"""What `headstart serve` refuses, with which status, and that a good client does not suffer from bad ones."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart.commands.main import main
from tests.support.images import encoded, photograph
from tests.support.orchestration import wait_for
from tests.support.serving import PICTURE, SMALL, Serving, served

HEADER = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    options = ("--send-seconds", "1.5", "--max-pixels", "1000000", "--max-waiting", "2", "--max-connections", "40")
    log = tmp_path_factory.mktemp("strict") / "log"
    with served(SMALL, log, "--max-mb", "2", *options) as started:
        yield started


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """Return the status and the rest of an answer after which the server closes."""
    data = b""
    while part := connection.recv(65536):
        data += part
    connection.close()
    return int(data.split()[1]) if data else 0, data.decode()


def claiming(width_px: int, height_px: int) -> bytes:
    """Return a small PNG whose header tells of a large picture."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def of_many_scans(n_scans: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = encoded(photograph(1, 100, 100), "JPEG", progressive=True)
    first = data.rindex(b"\xff\xda")
    return data[:first] + data[first:-2] * n_scans + data[-2:]


def test_pixels_are_counted_by_the_header_before_anything_is_decoded(strict: Serving) -> None:
    status, said = strict.predict(claiming(13_000, 13_000))
    assert status == 422
    assert said["detail"].startswith("13000 x 13000 pixels, more than 1000000. An image file was expected")
    gif = b"GIF89a" + struct.pack("<HHBBB", 20_000, 8_000, 0, 0, 0) + b","
    gif += struct.pack("<HHHHB", 0, 0, 20_000, 8_000, 0) + b"\x02\x02\x4c\x01\x00;"
    assert strict.predict(gif)[0] == 422
    assert strict.predict(encoded(photograph(1, 1000, 1000), "PNG"))[0] == 200
    began = time.monotonic()
    assert strict.predict(of_many_scans(3000))[0] == 422
    assert time.monotonic() - began < 2
    assert strict.predict(of_many_scans(2))[0] == 200


def test_a_header_or_a_body_that_takes_too_long_is_ended(strict: Serving) -> None:
    never = strict.connected()
    half = strict.connected(b"POST /predict HTTP/1.1\r\nHost: x\r\n")
    dripping = strict.connected(HEADER % 1000)
    began = time.monotonic()
    for _ in range(8):  # a byte now and then must not count as progress
        time.sleep(0.25)
        for connection, data in ((half, b"A: b\r\n"), (dripping, b"x")):
            with contextlib.suppress(OSError):
                connection.sendall(data)
    status, said = answer_of(half)
    assert (status, "the header did not arrive within 1.5 seconds" in said) == (408, True)
    status, said = answer_of(dripping)
    assert (status, "the body did not arrive within 1.5 seconds" in said) == (408, True)
    assert answer_of(never) == (0, "")
    assert time.monotonic() - began < 6


def test_what_is_sent_behind_an_answer_does_not_keep_a_connection_open(strict: Serving) -> None:
    sending = strict.connected(HEADER.replace(b"/predict", b"/nowhere") % 1000)
    wait_for(lambda: strict.lines("/nowhere"), 10)
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 10:
            sending.sendall(b"x")
            time.sleep(0.1)
    assert time.monotonic() - began < 5


def test_half_sent_headers_take_no_place_from_a_good_client(strict: Serving) -> None:
    bad = [strict.connected(b"POST /predict HTTP/1.1\r\n") for _ in range(200)]
    try:
        status, said, _ = strict.post("/predict", PICTURE.read_bytes())
        assert status == 200, said
    finally:
        for connection in bad:
            connection.close()


def test_more_requests_than_may_wait_are_refused_at_once_and_told_when_to_come_again(strict: Serving) -> None:
    slow = encoded(photograph(1, 1000, 1000), "WEBP", lossless=True)
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: strict.post("/predict", slow), range(64)))
    statuses = Counter(status for status, _, _ in replies)
    assert set(statuses) == {200, 503}
    for status, said, headers in replies:
        if status == 503:
            assert re.match(r"2 requests are waiting already. Try again", said["detail"])
            assert int(headers["Retry-After"]) >= 1
    assert strict.predict(PICTURE.read_bytes())[0] == 200


def test_who_hangs_up_leaves_one_line_in_the_log(strict: Serving) -> None:
    def other_lines() -> list[str]:
        return [line for line in strict.log.read_text().splitlines() if not line.startswith("{")]

    before = other_lines()
    for _ in range(5):
        connection = strict.connected(HEADER.replace(b"/predict", b"/predict/format-1") % 1000 + b"x")
        connection.close()
    lines = wait_for(lambda: len(strict.lines("/predict/format-1")) == 5 and strict.lines("/predict/format-1"), 10)
    assert {line["status"] for line in lines} == {499}
    assert other_lines() == before


def test_what_waits_is_not_done_for_who_has_hung_up(tmp_path: Path) -> None:
    slow = encoded(photograph(1, 3000, 4000), "WEBP", lossless=True)
    with served(SMALL, tmp_path / "log") as serving:
        clients = [serving.connected(HEADER % len(slow) + slow) for _ in range(40)]
        wait_for(lambda: serving.metric("headstart_waiting") > 30, 20)
        for client in clients:
            client.close()
        wait_for(lambda: serving.metric("headstart_waiting") == 0, 20)
        assert len([line for line in serving.lines("/predict") if line["status"] == 499]) > 20
        assert serving.metric("headstart_images_total") < 20
        assert serving.metric("headstart_held_bytes") == 0
        assert "Traceback" not in serving.log.read_text()


def test_bodies_that_are_held_and_connections_of_one_address_are_bounded(tmp_path: Path) -> None:
    with served(SMALL, tmp_path / "log", "--max-per-address", "30", "--send-seconds", "8") as serving:
        part = bytes(19_000_000)
        held = []
        for _ in range(10):
            connection = serving.connected(HEADER % 19_900_000)
            threading.Thread(target=_send, args=(connection, part), daemon=True).start()
            held.append(connection)
        wait_for(lambda: len([line for line in serving.lines("/predict") if line["status"] == 503]) >= 4, 20)
        assert serving.memory_mb() < 400
        assert serving.metric("headstart_held_bytes") <= 128_000_000
        assert serving.predict(PICTURE.read_bytes())[0] == 200  # a small one still has room
        more = [serving.connected() for _ in range(40)]
        wait_for(lambda: _closed(more), 10)
        statuses = {answer_of(connection)[0] for connection in more[-5:]}
        assert statuses == {429}
        for connection in held + more:
            connection.close()


def test_clients_that_do_not_read_their_answers_keep_nobody_out(tmp_path: Path) -> None:
    with served(SMALL, tmp_path / "log", "--max-connections", "4", "--send-seconds", "2") as serving:
        answers = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 8
        held = [serving.connected(answers) for _ in range(4)]
        time.sleep(0.5)  # until the answers fill what the system keeps of them
        assert serving.predict(PICTURE.read_bytes())[0] == 200
        for connection in held:
            connection.close()
        assert "Traceback" not in serving.log.read_text()


def test_requests_for_a_websocket_do_not_count_for_ever(tmp_path: Path) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
    request = b"GET /predict HTTP/1.1\r\nHost: x\r\n" + upgrade % b"dGhlIHNhbXBsZSBub25jZQ=="
    with served(SMALL, tmp_path / "log", "--max-per-address", "3") as serving:
        for _ in range(5):
            with serving.connected(request) as connection:
                assert b" 405 " in connection.recv(65536)
        assert serving.predict(PICTURE.read_bytes())[0] == 200


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server closed
        connection.sendall(data)


def _closed(connections: list[socket.socket]) -> bool:
    connections[-1].settimeout(0.2)
    try:
        return bool(connections[-1].recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False


def test_what_is_no_number_is_told_at_the_command_line() -> None:
    for option in ("--max-pixels=0", "--send-seconds=0", "--batch-ms=-1", "--batch-ms=nan"):
        with pytest.raises(SystemExit):
            main(["serve", str(SMALL), option])
