"""The page of `headstart review`, as it is started: by keyboard in a browser, and closed to everybody else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from headstart import reviewed
from headstart.commands.main import main
from headstart.layout import Layout
from tests.support.browser import opened
from tests.support.images import ROOT
from tests.support.processes import started
from tests.support.reviews import FOUND, PLAIN, audited, id_of

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


@contextmanager
def reviewing(layout: Layout) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address of a running `headstart review`."""
    command = [sys.executable, "-m", "headstart", "review", "--no-browser", str(layout.audit)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as running:
        assert running.stdout is not None
        found = re.search(r"http://\S+", line := running.stdout.readline())
        assert found is not None, line + running.stdout.read()
        yield found[0], running


def decisions(layout: Layout) -> dict[str, tuple[str, str, bool]]:
    found = reviewed.read(layout.reviewed).values()
    return {each.path.removeprefix("photos/"): (each.decision, each.label, bool(each.group)) for each in found}


def test_findings_are_decided_by_keyboard(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    together = {f"ants/{number}.png": ("change", "", True) for number in range(3)}
    with reviewing(layout) as (url, _), opened() as page:
        page.goto(url)
        question, said = page.locator("#question"), page.locator("#said")
        expect(question).to_contain_text("Nearly the same picture in two splits")
        expect(page.locator("#held-out")).to_be_visible()
        expect(page.locator("figure img")).to_have_count(2)
        for number in range(2):
            expect(page.locator("figure img").nth(number)).to_have_js_property("naturalWidth", 160)
        page.keyboard.press("a")
        expect(said).to_have_text("photos/ants/0.png: accepted")
        assert decisions(layout) == together
        expect(question).to_contain_text("two labels")  # the other leak was of the same cluster
        page.keyboard.press("k")
        expect(question).to_contain_text("Is it ants, or bees?")
        expect(page.locator("#others li")).to_have_count(0)
        page.keyboard.press("l")
        page.keyboard.type("be")
        page.keyboard.press("Enter")  # completes
        page.keyboard.press("Enter")
        expect(said).to_have_text("photos/ants/1.png: given another label, bees")
        page.keyboard.press("d")
        expect(said).to_have_text("photos/bees/2.png: dropped")
        assert decisions(layout) == together | {
            "ants/1.png": ("change", "bees", True),
            "bees/3.png": ("keep", "", False),
            "bees/2.png": ("drop", "", False),
        }
        page.keyboard.press("u")
        expect(said).to_have_text("photos/bees/2.png: undone")
        page.keyboard.press("u")
        expect(said).to_have_text("photos/ants/1.png: undone")
        assert decisions(layout) == together | {"bees/3.png": ("keep", "", False)}
        page.reload()
        expect(question).to_contain_text("Is it ants, or bees?")  # what is decided is not asked again
        page.keyboard.press("v")
        page.keyboard.press("2")
        expect(page.locator("#answer")).to_have_text("kept")
        page.keyboard.press("Backspace")
        expect(page.locator("#answer")).to_be_hidden()
        assert decisions(layout) == together


def test_an_odd_image_is_dropped_by_the_key_of_dropping(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    with reviewing(layout) as (url, _), opened() as page:
        page.goto(url)
        page.locator("[data-kind=odd]").click()
        button = page.get_by_role("button", name="Drop it")
        for key in ("d", "a"):
            expect(button).to_contain_text("d")
            page.keyboard.press(key)
            expect(page.locator("#said")).to_have_text("photos/bees/0.png: dropped")
            assert decisions(layout) == {"bees/0.png": ("drop", "", False)}
            page.keyboard.press("u")
            expect(page.locator("#said")).to_have_text("photos/bees/0.png: undone")


def test_the_page_tells_what_others_have_decided_and_that_it_has_ended(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    image_id = id_of(layout, "photos/ants/0.png")
    with reviewing(layout) as (url, running), opened(is_ours=False) as page:  # the console has the refusals
        page.goto(url)
        said = page.locator("#said")
        expect(page.locator("#question")).to_contain_text("Nearly the same picture in two splits")
        page.locator("#decided").check()
        reviewed.add(layout.reviewed, [reviewed.Decision(image_id, "photos/ants/0.png", "drop")])
        page.get_by_role("button", name="Leave both").click()
        expect(said).to_contain_text("photos/ants/0.png was decided elsewhere meanwhile")
        expect(page.locator("#answer")).to_have_text("dropped")
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 0
        assert running.stdout is not None
        assert "reviewed.csv has 1 decisions; `headstart run` uses them" in running.stdout.read()
        page.keyboard.press("k")
        expect(said).to_contain_text("has ended: nothing is written any more")


def test_labels_and_paths_are_text_and_nothing_else(tmp_path: Path) -> None:
    path = f"photos/{HOSTILE.replace('/', '')}.png"
    rows = {**PLAIN, path: (HOSTILE, "train", None, "")}
    layout = audited(tmp_path / "project", rows, [("label", path, None, f"{HOSTILE}2", None, 0.9), *FOUND])
    with reviewing(layout) as (url, _), opened() as page:
        page.goto(url)
        page.locator("#question").wait_for()
        page.locator("[data-kind=label]").click()
        page.get_by_text(f"Is it {HOSTILE}, or {HOSTILE}2?").wait_for()
        expect(page.locator("img[src=x]")).to_have_count(0)
        page.keyboard.press("a")
        page.get_by_text(f"{path}: accepted").wait_for()
    (decision,) = reviewed.read(layout.reviewed).values()
    assert (decision.path, decision.label) == (path, f"{HOSTILE}2")


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_nobody_but_the_page_reads_or_decides(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    (layout.root / "secret.txt").write_text("secret")
    said = json.dumps({"number": 0, "action": "drop"}).encode()
    json_type = {"Content_Type": "application/json"}
    with reviewing(layout) as (url, _):
        origin = f"http://{urlsplit(url).netloc}"
        assert status(url) == 200
        assert status(f"{origin}/") == status(f"{origin}/state") == status(f"{origin}/wrong/state") == 404
        assert status(url, Host="evil.example") == 421
        assert status(f"{url}decide", said) == 403  # as a form of another page is sent
        assert status(f"{url}decide", said, Origin="http://evil.example", **json_type) == 403
        assert status(f"{url}decide", said, Sec_Fetch_Site="cross-site", **json_type) == 403
        assert status(f"{url}decide", b"{" + b" " * 300_000, **json_type) == 413
        for path in ("../secret.txt", "..%2f..%2fsecret.txt", "image/../../secret.txt", "application.py"):
            assert status(f"{url}{path}") == 404
        not_found = id_of(layout, "photos/bees/1.png").replace("0", "1")
        assert status(f"{url}image/{not_found}") == 409
        for body in (b"", b"{}", b'{"number": 99, "action": "drop"}', b'{"number": 0, "action": "rm"}', b"[" * 10_000):
            assert status(f"{url}decide", body, **json_type) == 409
        assert not layout.reviewed.exists()
        assert status(f"{url}decide", said, Origin=origin, **json_type) == 200
        address = urlsplit(url)
        with pytest.raises(OSError):  # no other address of this machine
            socket.create_connection(("127.0.0.2", address.port or 0), 5).close()
    assert decisions(layout) == {"ants/0.png": ("drop", "", False)}


def test_the_ways_without_a_page(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = audited(tmp_path / "project")
    monkeypatch.chdir(layout.root)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["review", "--port", str(taken.getsockname()[1])]) == 1
    assert "cannot be used (Address already in use). A free one was expected." in capfd.readouterr().err
    assert main(["review", "--list"]) == 0
    assert "photos/bees/0.png" in capfd.readouterr().out
    assert main(["review", "--csv", "t.csv"]) == main(["review", "--from", "t.csv"]) == 0
    assert "0 decisions are taken over" in capfd.readouterr().out
    assert main(["review", "--accept", "leaks"]) == 0
    assert "3 images are put together in 1 groups" in capfd.readouterr().out
    assert main(["review", "photos"]) == 1
    assert "photos is no audit. The folder artifacts/audit of a project was expected." in capfd.readouterr().err
