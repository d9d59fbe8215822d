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
progress.warn("two images are alike")
with progress.bar("embedding", 100, "image") as advance:
    for _ in range(40):
        time.sleep(0.04)
        advance(1)
"""


def on_a_terminal(code: str, **environment: str) -> str:
    """Return what a terminal of 100 columns gets from a script."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0
    return shown.decode()


def test_a_terminal_shows_a_bar_with_rate_and_time_left_and_keeps_a_line_of_what_was_done() -> None:
    text = on_a_terminal(EMBED, NO_COLOR="1")
    assert re.search(r"embed: embedding: +\d+%\|[^|]*\| \d+/100 images, \d+ per second, \d+ s left", text)
    *_, bar, last = [part for part in re.split(r"[\r\n]+", text) if part]
    assert re.fullmatch(r"embed: embedding: 40 images in \d\.\d s", last)  # fewer than was thought: done all the same
    assert bar.strip() == ""  # the bar is wiped


def test_colours_are_for_a_terminal_whose_user_has_not_declined_them() -> None:
    assert "\x1b[1;33mwarning:\x1b[0m two images are alike" in on_a_terminal(EMBED)
    for declined in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        text = on_a_terminal(EMBED, **declined)
        assert "embed: warning: two images are alike" in text
        assert not re.search(r"\x1b\[[\d;]*m", text)


def test_elsewhere_there_are_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", EMBED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"embed: embedding: 40 images in \d\.\d s\n", done.stdout)
    assert done.stderr == "embed: warning: two images are alike\n"


def test_what_an_earlier_run_left_does_not_count_as_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PLAIN_LINE_EVERY_S", 0.0)
    now = itertools.count()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    progress.begin("embed")
    with progress.bar("embedding", 100_100, "image") as advance:
        for n in (100_000, 5, 5):  # the first are in the cache
            advance(n)
    assert capsys.readouterr().out.splitlines() == [
        "embed: embedding: 100000 of 100100 images",
        "embed: embedding: 100005 of 100100 images, 5.0 per second, 19 s left",
        "embed: embedding: 100010 of 100100 images, 5.0 per second, 18 s left",
        "embed: embedding: 100010 images in 4.0 s",
    ]


def test_work_that_stops_with_an_error_is_not_told_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), progress.bar("embedding", 2, "image") as advance:
        advance(1)
        raise ValueError("no")
    assert "embedding" not in capsys.readouterr().out


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
        "embed: embedding: 1 of 80 images",
        "embed: embedding: 60 of 80 images, 59 per second, 0 s left",
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
    assert told[4] == {"kind": "progress", "what": "embedding", "done": 2, "total": 2, "unit": "image"}


def test_progress_is_told_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = tmp_path / "events.jsonl"
    monkeypatch.setenv(progress.EVENTS_VARIABLE, str(events))
    with progress.bar("fitting", 100, "fit") as advance:
        for _ in range(60):  # fewer than was thought
            advance(1)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert [(each["done"], each["total"]) for each in told] == [(1, 100), (60, 60)]


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


def test_quick_work_leaves_no_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for took_s, n_lines in ((0.9, 0), (1.1, 1)):
        now = iter([0.0, 0.5, took_s])  # at the beginning, at the only step, at the end
        monkeypatch.setattr(progress.time, "monotonic", lambda now=now: next(now))
        with progress.bar("embedding", 2, "image") as advance:
            advance(2)
        assert len(capsys.readouterr().out.splitlines()) == n_lines


def test_threads_lose_no_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_WORTH_A_LINE_S", 0.0)
    with progress.bar("embedding", 8000, "image") as advance:
        threads = [Thread(target=lambda: [advance(1) for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "8000 images in" in capsys.readouterr().out
