from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from headstart.base import progress
from tests.support.images import ROOT

EMBED = """
import time
from headstart.base import progress
progress.begin("embed")
with progress.bar("embedding", 40, "image") as advance:
    for _ in range(40):
        time.sleep(0.02)
        advance(1)
"""


def test_a_terminal_shows_a_bar_with_rate_and_time_left() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a window of 100 columns
    process = subprocess.Popen([sys.executable, "-c", EMBED], cwd=ROOT, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    text = shown.decode()
    assert re.search(r"embed: embedding: +\d+%.*\d+/40 \[\d\d:\d\d<\d\d:\d\d, +\d+\.\d+ image/s\]", text)
    assert "100%" in text


def test_elsewhere_there_are_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", EMBED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"embed: embedding 40/40 images in \d\.\d s\n", done.stdout)
    assert done.stderr == ""


def test_long_work_is_told_now_and_then_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_LINE_EVERY_S", 0.0)
    now = itertools.count()  # a second passes from one look at the clock to the next
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    progress.begin("embed")
    with progress.bar("embedding", 80, "image") as advance:
        for n in (1, 59, 20):
            advance(n)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "embed: embedding 1/80 images, 1.0 per second, 79 s left",
        "embed: embedding 60/80 images, 15 per second, 1 s left",
    ]
    assert len(lines) == 3


def test_every_call_is_one_line_for_whoever_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(events))
    progress.begin("embed")
    progress.say("one")
    progress.warn("two")
    progress.fail("three")
    with progress.bar("embedding", 2, "image") as advance:
        advance(2)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [event["kind"] for event in told] == ["start", "log", "log", "error", "progress"]
    assert told[1] == {"kind": "log", "level": "info", "message": "one"}
    assert told[2]["level"] == "warning"
    assert told[3] == {"kind": "error", "message": "three", "may_heal": False, "rejected": False}
    assert told[4].pop("rate") > 0
    assert told[4] == {"kind": "progress", "what": "embedding", "done": 2, "total": 2, "unit": "image"}


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(events))
    with progress.bar("fitting", 100, "fit") as advance:
        for _ in range(60):  # fewer than was thought
            advance(1)
    told = [json.loads(line)["done"] for line in events.read_text().splitlines()]
    assert told == [1, 60]


def test_tables_and_pictures_go_to_whoever_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(events))
    progress.show_table("candidates", [{"strength": np.float32(0.5), "chosen": np.True_}], "all of them")
    progress.show_image("matrix", lambda: b"\x89PNG", "the held-out images")
    progress.show_image("broken", lambda: bytes(1 // 0), "never seen")
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [event["kind"] for event in told] == ["table", "image", "log"]
    assert told[0]["rows"] == [{"strength": 0.5, "chosen": True}]
    assert base64.b64decode(told[1]["data"]) == b"\x89PNG"
    assert "'broken' could not be drawn" in told[2]["message"]


def test_a_picture_that_nobody_sees_is_not_drawn() -> None:
    progress.show_image("matrix", lambda: pytest.fail("drawn"), "the held-out images")


def test_with_a_listener_the_terminal_says_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(tmp_path / "events.jsonl"))
    progress.say("one")
    with progress.bar("embedding", 2, "image") as advance:
        advance(2)
    progress.fail("why it stops")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(": why it stops\n")


def test_a_listener_that_cannot_be_told_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(tmp_path / "gone" / "events.jsonl"))
    progress.say("nobody hears it")
    progress.fail("still here")
    assert capsys.readouterr().err.endswith(": still here\n")


def test_threads_lose_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("embedding", 8000, "image") as advance:
        threads = [Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "8000/8000" in capsys.readouterr().out
