"""`headstart serve`: a real process, asked by HTTP and in a browser."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
from playwright.sync_api import expect

from tests.support.browser import opened
from tests.support.images import ROOT, encoded, photograph
from tests.support.projects import Project
from tests.support.serving import Serving, served


@pytest.fixture(scope="module")
def serving(base: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    log = tmp_path_factory.mktemp("serving") / "log"
    with served(base.root / "artifacts" / "model", log, "--max-mb", "1") as started:
        yield started


def test_it_answers_what_evaluate_reported(serving: Serving, base: Project) -> None:
    table = pl.read_parquet(base.root / "artifacts" / "evaluation" / "predictions.parquet")
    below = json.loads((base.root / "artifacts/model/model.json").read_text())["abstain_below"]
    for row in table.iter_rows(named=True):
        status, answer = serving.predict((base.root / "photos" / row["path"]).read_bytes())
        assert status == 200
        assert answer["label"] == row["predicted"]
        assert answer["probability"] == pytest.approx(row["probability"], abs=1e-4)
        assert answer["abstains"] == (answer["probability"] < below)
        assert answer["label_set"][0] == answer["label"]
        assert answer["novelty"] == pytest.approx(row["novelty"], abs=0.05)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert next(iter(answer["probabilities"])) == answer["label"]


def test_it_says_that_it_is_alive_and_ready_and_what_it_is(serving: Serving) -> None:
    assert serving.get("/health") == {"status": "alive"}
    assert serving.get("/ready") == {"status": "ready"}
    assert serving.get("/model")["classes"] == ["ants", "bees"]
    schema = serving.get("/openapi.json")
    own = {"/health", "/ready", "/model", "/model/{name}", "/predict", "/predict/{name}", "/metrics"}
    assert {path for path in schema["paths"] if not path.startswith("/v2")} == own
    assert set(schema["paths"]["/predict"]["post"]["requestBody"]["content"]) == {"image/*", "multipart/form-data"}


def test_what_is_no_image_and_what_is_too_large_is_refused_with_the_reason(serving: Serving) -> None:
    assert serving.predict(b"<html>") == (
        422,
        {
            "detail": "not an image of a known format. An image file was expected: as the request's body, or in a form"
            " as of `curl -F file=@photo.jpg`."
        },
    )
    assert serving.predict(b"")[0] == 422
    status, said = serving.predict(bytes(1_000_001))
    assert (status, said["detail"][:15]) == (413, "more than 1 MB.")
    assert serving.get("/health") == {"status": "alive"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
@pytest.mark.parametrize("picture", ["baseline.jpg", "lzw.tif", "lossless.webp"])  # of any bytes, line ends among them
def test_a_form_is_answered_as_a_raw_body_is(picture: str, serving: Serving) -> None:
    file = ROOT / "tests" / "pictures" / picture
    raw = serving.predict(file.read_bytes())
    assert raw[0] == 200

    def curl(*arguments: str) -> tuple[int, Any]:
        command = ["curl", "--silent", "--write-out", "\n%{http_code}", *arguments, f"{serving.url}/predict"]
        body, status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.rsplit("\n", 1)
        return int(status), json.loads(body)

    assert curl("--data-binary", f"@{file}") == raw
    assert curl("-F", f"file=@{file}") == raw
    assert curl("-F", "note=filename", "-F", f"photo=@{file}", "-F", "more=x") == raw
    assert curl("-F", "filename=photo.jpg")[1]["detail"].startswith("a form without a file. An image file was expected")
    assert curl("-F", f"file=@{ROOT / 'LICENSE'}")[1]["detail"].startswith("not an image of a known format.")


def test_who_is_still_sending_what_is_too_large_hears_the_reason(serving: Serving) -> None:
    connection = http.client.HTTPConnection(serving.url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    time.sleep(6)  # uvicorn closes a connection on which nothing comes for five seconds once it has answered
    for _ in range(4):
        connection.send(bytes(500_000))
        time.sleep(0.1)
    reply = connection.getresponse()
    assert (reply.status, json.loads(reply.read())["detail"][:15]) == (413, "more than 1 MB.")
    connection.close()


def test_who_asks_before_sending_what_is_too_large_need_not_send_it(serving: Serving) -> None:
    connection = http.client.HTTPConnection(serving.url.removeprefix("http://"), timeout=20)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Length", "2000000")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_of_unknown_length_is_not_read_beyond_the_limit(serving: Serving) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 100_000
            yield bytes(100_000)

    request = urllib.request.Request(f"{serving.url}/predict", data=endless(), method="POST")  # chunked
    with pytest.raises((urllib.error.HTTPError, ConnectionError, urllib.error.URLError)) as refused:
        urllib.request.urlopen(request)
    assert getattr(refused.value, "code", 413) == 413
    assert sent < 20_000_000
    assert serving.get("/health") == {"status": "alive"}


def test_an_image_is_dropped_on_the_page_and_its_label_shown(serving: Serving, base: Project) -> None:
    table = pl.read_parquet(base.root / "artifacts" / "evaluation" / "predictions.parquet")
    row = table.row(0, named=True)
    with opened() as page:
        page.goto(serving.url)
        expect(page.get_by_text("The model tells 2 classes apart: ants, bees")).to_be_visible()
        data = (base.root / "photos" / row["path"]).read_bytes()
        transfer = page.evaluate_handle(
            """bytes => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.jpg", {type: "image/jpeg"})); return data; }""",
            list(data),
        )
        page.locator("#drop").dispatch_event("drop", {"dataTransfer": transfer})
        answer = page.locator("#answers li").first
        expect(answer.locator(".label")).to_contain_text(row["predicted"])
        expect(answer.locator(".bars b")).to_have_count(2)
        page.set_input_files("input[type=file]", {"name": "n.png", "mimeType": "image/png", "buffer": noise()})
        expect(page.locator("#answers li").first).to_contain_text("n.png")
        expect(page.locator("#answers li").first.locator(".label")).to_be_visible()


def test_the_page_speaks_to_visitors_and_shows_an_icon_for_what_is_no_image(base: Project, tmp_path: Path) -> None:
    with (
        served(base.root / "artifacts" / "model", tmp_path / "log", "--max-mb", "1") as serving,
        opened(is_ours=False) as page,  # a browser writes each status of an error on the console
    ):
        page.goto(serving.url)
        answers = page.locator("#answers li")

        def said(name: str, data: bytes) -> str:
            page.set_input_files("input[type=file]", {"name": name, "mimeType": "image/jpeg", "buffer": data})
            warning = answers.filter(has_text=name).locator(".warn").first
            expect(warning).to_be_visible()
            return warning.inner_text()

        assert said("letter.jpg", b"Dear Sir").startswith("This file cannot be read as a picture.")
        expect(answers.first.locator("svg")).to_be_visible()
        expect(answers.first.locator("img")).to_have_count(0)
        assert said("large.jpg", bytes(1_000_001)) == "This file is too large. Files of up to 1 MB can be looked at."
        expect(answers.first.locator("svg")).to_be_visible()
        black = encoded(np.zeros((64, 64, 3), np.uint8), "PNG")
        page.route("**/predict", lambda route: route.fulfill(json=ODD))
        assert said("black.png", black) == "Not sure enough: better ask a person."
        assert "Unlike all pictures that the model has learned from" in answers.first.inner_text()
        expect(answers.first.locator("img")).to_be_visible()
        page.unroute("**/predict")
        serving.process.kill()
        serving.process.wait()
        assert said("late.png", black) == "There is no answer at the moment. Try again in a minute."
        shown = page.inner_text("body")
        assert not re.search(r"max-mb|request|body|headstart|fetch|format|null|undefined|\{\{", shown)


ODD = {"label": "ants", "probability": 0.51, "abstains": True, "novelty": 0.995, "probabilities": {"ants": 0.51}}


def noise() -> bytes:
    return encoded(photograph(1)[..., ::-1].copy(), "PNG")


@pytest.mark.parametrize("classes", [["9", "3"], ["3", "9"]])  # whichever the answer is, it is the later one once
def test_the_most_probable_class_is_first_on_the_page_also_where_classes_are_numbers(
    classes: list[str], tmp_path: Path
) -> None:
    """A script reads an object's numbers in their own order."""
    model = onnx.load(ROOT / "tests" / "models" / "format-1" / "model.onnx")
    facts = {each.key: each.value for each in model.metadata_props}
    onnx.helper.set_model_props(model, {**facts, "classes": json.dumps(classes)})
    onnx.save(model, tmp_path / "model.onnx")
    picture = ROOT / "tests" / "models" / "format-1" / "conformance" / "gray.jpg"
    with served(tmp_path / "model.onnx", tmp_path / "log") as serving, opened() as page:
        page.goto(serving.url)
        page.set_input_files("input[type=file]", picture)
        label, first = page.locator("#answers .label"), page.locator("#answers .bars span").first
        expect(first).to_be_visible()
        assert label.inner_text().startswith(f"{first.inner_text()} ")


def test_the_page_of_the_interface_needs_nothing_from_outside(serving: Serving) -> None:
    with opened() as page:  # which asserts that no request leaves
        page.goto(f"{serving.url}/docs")
        expect(page.get_by_text("Classify an image: the request body is the file")).to_be_visible()


def test_told_to_stop_it_answers_what_is_under_way_and_goes(base: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with served(base.root / "artifacts" / "model", log) as serving:
        answers: list[int] = []
        large = encoded(photograph(1, 3000, 4000), "PNG")  # takes a while to decode
        thread = threading.Thread(target=lambda: answers.append(serving.predict(large)[0]))
        thread.start()
        time.sleep(0.3)
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(15) in (0, -signal.SIGTERM)
        thread.join()
        assert answers == [200]
    assert "Traceback" not in log.read_text()


def test_without_its_extra_it_says_what_to_install(base: Project, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError('no', name='uvicorn')")
    command = [sys.executable, "-m", "headstart", "serve", str(base.root / "artifacts/model")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 1
    assert "uvicorn is not installed. Run `pip install 'headstart[serve]'`." in done.stdout
