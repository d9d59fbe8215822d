"""The model answers alike in other runtimes, from the bytes of the conformance images to their probabilities.

`headstart verify --runtime` in Python, `headstart page` in a browser, and the examples of docs/handover.md.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from headstart.commands import main as cli
from headstart.handover.page import site as builder
from tests.support.browser import opened
from tests.support.images import ROOT, encoded, photograph
from tests.support.projects import Project
from tests.support.web import served

EXAMPLES = ROOT / "examples"
CLOSE = 1e-3
BITS = 12
LOADS_MS, RUNS_MS = 60_000, 120_000


@pytest.fixture(scope="module")
def model(base: Project) -> Path:
    return base.root / "artifacts" / "model"


def vectors_of(model: Path) -> list[dict[str, object]]:
    vectors: list[dict[str, object]] = json.loads((model / "conformance" / "expected.json").read_text())["images"]
    return vectors


def assert_agrees(said: str, model: Path) -> None:
    expected, answers = vectors_of(model), [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(expected) > 8
    below = json.loads((model / "model.json").read_text())["abstain_below"]
    for answer, vector in zip(answers, expected, strict=True):
        apart = np.abs(np.array(answer["probabilities"]) - vector["probabilities"]).max()
        assert apart < CLOSE, (vector["file"], apart)
        assert answer["label"] == vector["label"]
        assert answer["abstains"] == (max(answer["probabilities"]) < below)
        assert 0 <= answer["novelty"] <= 1


def images_of(model: Path) -> list[str]:
    return [str(model / "conformance" / str(vector["file"])) for vector in vectors_of(model)]


def printed(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def npm() -> str:
    found = shutil.which("npm")
    if found is None:
        pytest.skip("no npm on the PATH: install it, such as by `apt install nodejs npm`")
    return found


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "reference"])
def test_verify_agrees_in_every_runtime(model: Path, runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(model), "--runtime", runtime]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert re.search(rf"verify: {runtime} \d+\.\d+\S* supports every operator of the model, opset \d+", said)
    assert re.search(r"verify: \d+ conformance images agree .*same labels, [\d.]+ ms an image", said)


# The site


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web as npm packs it."""
    npm()
    return builder.fetched(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="module")
def site(model: Path, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("served") / "site"
    assert cli.main(["page", str(model), "--out", str(out), "--webgpu", "--onnxruntime-web", str(archive)]) == 0
    return out


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """The URL of the folder that holds the site: a site may lie anywhere on a server."""
    with served(site.parent) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    """A browser that will have asked no other host. Its WebGPU is software where there is no graphics processor."""
    with opened(flags=["--enable-unsafe-webgpu"]) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str) -> Page:
    """The site, ready, by WebAssembly."""
    browser.goto(f"{url}/site/?runtime=wasm")
    ready(browser)
    return browser


def ready(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("The model is ready.", timeout=LOADS_MS)


def verdict(page: Page) -> str:
    page.get_by_role("button", name="Check this browser").click()
    expect(page.locator("#verdict .soft")).to_be_visible(timeout=RUNS_MS)
    return page.locator("#verdict").inner_text()


def test_a_browser_answers_alike_by_webassembly(page: Page, model: Path) -> None:
    said = verdict(page)
    assert f"This browser answers alike on all {len(vectors_of(model))} pictures." in said
    assert float(re.search(r"Largest difference of a probability: ([\d.e-]+)\.", said)[1]) < CLOSE  # type: ignore[index]
    expect(page.locator("#runs")).to_contain_text(f"onnxruntime-web {builder.VERSION}, in WebAssembly")


@pytest.mark.slow  # half a minute where software does the work of a graphics processor
def test_a_browser_answers_alike_by_webgpu(browser: Page, url: str, model: Path) -> None:
    browser.goto(f"{url}/site/?runtime=webgpu")
    if not browser.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
        pytest.skip("this chromium has no WebGPU")
    ready(browser)
    expect(browser.locator("#runs")).to_contain_text("(WebGPU)")
    assert f"This browser answers alike on all {len(vectors_of(model))} pictures." in verdict(browser)


def test_a_browser_that_answers_otherwise_is_told_so(site: Path, url: str, browser: Page) -> None:
    other = site.with_name("other")
    shutil.copytree(site, other, copy_function=os.link)
    file = other / "model" / "conformance" / "expected.json"
    expected = json.loads(file.read_text())
    expected["images"][0]["probabilities"].reverse()
    file.unlink()
    file.write_text(json.dumps(expected))
    browser.goto(f"{url}/other/")
    ready(browser)
    assert f"otherwise on 1 of {len(expected['images'])} pictures: do not trust its answers." in verdict(browser)


def test_pictures_and_a_folder_are_answered_as_evaluate_did_and_saved(
    page: Page, base: Project, tmp_path: Path
) -> None:
    table = pl.read_parquet(base.root / "artifacts" / "evaluation" / "predictions.parquet")
    rows = {f"photos/{row['path'].replace('/', '-')}": row for row in table.iter_rows(named=True)}
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, row in rows.items():
        shutil.copy(base.root / "photos" / row["path"], tmp_path / name)
    (folder / "notes.txt").write_text("seen in May")
    page.set_input_files("#folder", folder)
    expect(page.locator("#done")).to_have_text(f"{len(rows)} pictures answered", timeout=RUNS_MS)
    expect(page.locator("#state")).to_have_text("1 file of the folder skipped: no picture.")
    page.set_input_files("#files", {"name": "letter.jpg", "mimeType": "image/jpeg", "buffer": b"Dear Sir"})
    expect(page.locator("#answers li").first).to_contain_text("This browser cannot read the file as a picture.")
    expect(page.locator("#answers li").first.locator("svg")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the answers").click()
    saved = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert saved.pop() == {"path": "letter.jpg", "label": "", "probability": "", "abstains": "", "novelty": ""}
    assert {line["path"] for line in saved} == set(rows)
    for line in saved:
        row = rows[line["path"]]
        assert line["label"] == row["predicted"]
        assert float(line["probability"]) == pytest.approx(row["probability"], abs=CLOSE)
        assert float(line["novelty"]) == pytest.approx(row["novelty"], abs=0.05)
        assert line["abstains"] == str(float(line["probability"]) < below(base)).lower()
        item = page.locator("#answers li").filter(has_text=line["path"])
        expect(item.locator(".label")).to_contain_text(line["label"])


def below(project: Project) -> float:
    return float(json.loads((project.root / "artifacts" / "model" / "model.json").read_text())["abstain_below"])


def test_the_page_warns_of_what_is_unsure_or_new_and_takes_what_is_dropped(page: Page) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    transfer = page.evaluate_handle(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "noise.png", {type: "image/png"})); return data; }""",
        list(encoded(noise)),
    )
    page.locator("#drop").dispatch_event("drop", {"dataTransfer": transfer})
    item = page.locator("#answers li").first
    expect(item).to_contain_text("Unlike all pictures that the model has learned from", timeout=RUNS_MS)
    expect(item.locator(".bars b")).to_have_count(3)  # two classes and the novelty


def test_the_site_is_whole_and_fits_a_phone(site: Path, page: Page) -> None:
    assert "MIT License" in (site / "runtime" / "LICENSE.txt").read_text()
    assert (site / "runtime" / "ThirdPartyNotices.txt").stat().st_size > 100_000
    for link in page.locator("footer a").all():
        assert (site / str(link.get_attribute("href"))).is_file()
    before = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert before is not None
    page.set_viewport_size(before)


def test_a_site_without_conformance_images_replaces_one_that_has_them(
    model: Path, site: Path, archive: Path, url: str, browser: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    out = site.with_name("bare")
    shutil.copytree(site, out, copy_function=os.link)
    command = ["page", str(model), "--out", str(out), "--onnxruntime-web", str(archive), "--no-conformance"]
    assert cli.main(command) == 0
    assert "your own photographs" not in capsys.readouterr().out
    assert sorted(path.name for path in (out / "model").iterdir()) == ["MODEL_CARD.md", "model.json", "model.onnx"]
    assert not (out / "runtime" / "webgpu.wasm").exists()
    browser.goto(f"{url}/bare/")
    ready(browser)
    assert browser.locator("#check").is_hidden()


# The examples


def test_the_python_example_agrees(model: Path, tmp_path: Path) -> None:
    predict = [sys.executable, EXAMPLES / "python" / "predict.py"]
    assert_agrees(printed(*predict, model, *images_of(model), cwd=tmp_path), model)
    assert_scales_by_bits(model, tmp_path, lambda *given: printed(*predict, *given, cwd=tmp_path))


def test_the_node_example_agrees(model: Path, tmp_path: Path) -> None:
    for file in (EXAMPLES / "node").iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}  # it would fetch libraries for GPUs
    subprocess.run([npm(), "install", *quiet], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert_agrees(printed("node", "predict.mjs", model, *images_of(model), cwd=tmp_path), model)
    assert_scales_by_bits(model, tmp_path, lambda *given: printed("node", "predict.mjs", *given, cwd=tmp_path))


def test_the_browser_example_agrees(model: Path, archive: Path, browser: Page, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "browser" / "index.html", tmp_path)
    (tmp_path / "model").symlink_to(model)
    package = tmp_path / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    with tarfile.open(archive) as packed:
        for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"):
            (package / "dist" / name).write_bytes(packed.extractfile(f"package/dist/{name}").read())  # type: ignore
    with served(tmp_path) as url:
        browser.goto(url)
        browser.wait_for_function("document.querySelector('input').onchange !== null", timeout=LOADS_MS)
        browser.set_input_files("input", images_of(model))
        n_lines = "document.querySelector('pre').textContent.split('\\n').length"
        browser.wait_for_function(f"{n_lines} > {len(vectors_of(model))}", timeout=RUNS_MS)
        assert_agrees(browser.locator("pre").inner_text(), model)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the C++ examples' programs. OpenVINO's Python package has the headers, onnxruntime's has not."""
    openvino = pytest.importorskip("openvino")
    headers = [Path(root) / "opencv4" / "opencv2" / "imgcodecs.hpp" for root in ("/usr/include", "/usr/local/include")]
    if not (shutil.which("cmake") and shutil.which("c++") and any(file.exists() for file in headers)):
        pytest.skip("no cmake, C++ compiler or OpenCV: `apt install cmake g++ libopencv-imgcodecs-dev`")
    folder = tmp_path_factory.mktemp("cpp")
    configuration = f"-DOpenVINO_DIR={Path(openvino.__file__).parent / 'cmake'}"
    printed("cmake", "-S", EXAMPLES / "cpp", "-B", folder, configuration, cwd=folder)
    printed("cmake", "--build", folder, cwd=folder)
    return folder


@pytest.mark.parametrize("name", ["predict", "predict_onnxruntime"])
def test_the_cpp_examples_agree(name: str, built: Path, model: Path, tmp_path: Path) -> None:
    program = built / name
    if not program.exists():
        pytest.skip("cmake has found no onnxruntime: set CMAKE_PREFIX_PATH to a release of it, unpacked")
    assert_agrees(printed(program, model, *images_of(model), cwd=tmp_path), model)
    assert_scales_by_bits(model, tmp_path, lambda *given: printed(program, *given, cwd=tmp_path))


def assert_scales_by_bits(model: Path, folder: Path, predict: Callable[..., str]) -> None:
    """Assert that a 16-bit file whose values use 12 bits gets the answer of the same picture in 8 bits."""
    deep = folder / f"model of {BITS} bits"
    if not deep.exists():
        shutil.copytree(model, deep)
        facts = json.loads((deep / "model.json").read_text()) | {"bits": BITS}
        (deep / "model.json").write_text(json.dumps(facts))
        loaded = onnx.load(deep / "model.onnx")
        loaded.metadata_props.add(key="bits", value=str(BITS))
        onnx.save(loaded, deep / "model.onnx")
    grey = photograph(5)[..., 0]
    shallow_file, deep_file = folder / "8 bits.png", folder / "12 bits.png"
    shallow_file.write_bytes(encoded(Image.fromarray(grey)))
    levels = np.round(grey.astype(float) * (2**BITS - 1) / 255).astype(np.uint16)
    deep_file.write_bytes(encoded(Image.fromarray(levels)))
    first, second = (json.loads(line) for line in predict(deep, shallow_file, deep_file).splitlines())
    assert first["probabilities"] == pytest.approx(second["probabilities"], abs=1e-6)


def test_the_examples_stand_in_the_documentation_as_they_were_tried() -> None:
    page = (ROOT / "docs" / "handover.md").read_text()
    for file in ("python/predict.py", "node/predict.mjs", "browser/index.html", "cpp/predict.cpp", "cpp/decode.hpp"):
        assert (EXAMPLES / file).read_text().strip() in page, file
