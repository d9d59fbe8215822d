"""The finished model in other runtimes: largest difference on the conformance images, and milliseconds an image.

In Python by `headstart verify`'s own code, in Node by onnxruntime-node, in chromium by the site of `headstart page`. A
runtime that is not installed is left out. `--webgpu 1` asks chromium for WebGPU too; without a graphics processor that
takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from playwright.sync_api import expect, sync_playwright

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart.base.errors import CheckError
from headstart.handover import runtimes
from headstart.handover.model import Model
from headstart.handover.page import site
from headstart.handover.verify import ELSEWHERE, read_json, replay
from headstart.onnx.model_folder import CONFORMANCE, EXPECTED, MODEL

WAIT_MS = 600_000
IN_NODE = """
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
const [model, ...files] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
for (const file of files) {
  const [, height, width] = file.match(/(\\d+)x(\\d+)$/);
  const image = new ort.Tensor("uint8", new Uint8Array(readFileSync(file)), [1, +height, +width, 3]);
  await session.run({ image }, ["probabilities"]);
  const began = performance.now();
  const { probabilities } = await session.run({ image }, ["probabilities"]);
  console.log(JSON.stringify({ ms: performance.now() - began, probabilities: [...probabilities.data] }));
}
"""


class Row(NamedTuple):
    """What was found in a runtime."""

    runtime: str
    version: str
    furthest: float
    same_labels: bool
    image_ms: float


def in_python(folder: Path) -> Iterator[Row]:
    """Yield a row for each runtime that is installed."""
    model, vectors = Model(folder), read_json(folder / CONFORMANCE / EXPECTED)["images"]
    for name in runtimes.NAMES:
        try:
            runtime = runtimes.opened(name, folder / MODEL)
        except CheckError as error:
            print(error, file=sys.stderr)
            continue
        found = replay(runtime, model, folder, vectors, ELSEWHERE)
        yield Row(name, runtime.version, found.furthest, not found.other_labels, found.image_ms)


def in_node(folder: Path, npm: str) -> Row:
    """Return the row of onnxruntime-node, given pixels that Python has decoded."""
    model, vectors = Model(folder), read_json(folder / CONFORMANCE / EXPECTED)["images"]
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(ROOT / "examples" / "node" / "package.json", work)
        environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}  # it would fetch libraries for GPUs
        subprocess.run([npm, "install", "--silent"], cwd=work, env=environment, check=True, capture_output=True)
        files = []
        for number, vector in enumerate(vectors):
            pixels = model.decode((folder / CONFORMANCE / vector["file"]).read_bytes())
            files.append(Path(work) / f"{number}-{pixels.shape[0]}x{pixels.shape[1]}")
            files[-1].write_bytes(pixels.tobytes())
        (Path(work) / "run.mjs").write_text(IN_NODE)
        command = ["node", "run.mjs", str(folder / MODEL), *map(str, files)]
        said = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True).stdout
        about = read_json(Path(work) / "node_modules" / "onnxruntime-node" / "package.json")
    answers = [json.loads(line) for line in said.splitlines()]
    found = [np.array(answer["probabilities"]) for answer in answers]
    furthest = max(
        float(np.abs(each - vector["probabilities"]).max()) for each, vector in zip(found, vectors, strict=True)
    )
    same = all(
        model.classes[int(each.argmax())] == vector["label"] for each, vector in zip(found, vectors, strict=True)
    )
    image_ms = statistics.median(answer["ms"] for answer in answers)
    return Row("onnxruntime-node", about["version"], furthest, same, image_ms)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the URL of a folder."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-3, text=True) as process:
        try:
            assert process.stdout is not None
            yield re.findall(r"http://[\d.:]+", process.stdout.readline())[0]
        finally:
            process.kill()


def in_browser(url: str, chromium: str, backend: str) -> Row:
    """Return what the page says after its own check of the browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-webgpu"])
        page = browser.new_page()
        page.goto(f"{url}/?runtime={backend}")
        page.get_by_role("button", name="Check this browser").click(timeout=WAIT_MS)
        expect(page.locator("#verdict .soft")).to_be_visible(timeout=WAIT_MS)
        said, ran = page.locator("#verdict").inner_text(), page.locator("#runs").inner_text()
        version = f"{site.VERSION}, Chromium {browser.version.partition('.')[0]}"
        browser.close()
    furthest, image_ms = re.findall(r"probability: (\S+)\. Time a picture: (\d+) ms", said)[0]
    name = "WebGPU" if "WebGPU" in ran else "WebAssembly, 1 thread"
    return Row(f"onnxruntime-web, {name}", version, float(furthest), "alike on all" in said, float(image_ms))


def main() -> None:
    """Print the table, and the results as JSON."""
    given = arguments(__doc__, data=False, model=str(ROOT / "artifacts" / "model"), webgpu=0)
    folder = Path(given.model)
    rows = list(in_python(folder))
    npm, chromium = shutil.which("npm"), shutil.which("chromium")
    if npm:
        rows.append(in_node(folder, npm))
    if npm and chromium:
        with tempfile.TemporaryDirectory() as work:
            options = ["--webgpu"] if given.webgpu else []
            out = Path(work) / "site"
            command = [sys.executable, "-m", "headstart", "page", str(folder), "--out", str(out), *options]
            subprocess.run(command, check=True, capture_output=True)
            with served(out) as url:
                backends = ("wasm", "webgpu") if given.webgpu else ("wasm",)
                rows.extend(in_browser(url, chromium, backend) for backend in backends)
    print(machine())
    header = ["runtime", "version", "largest difference", "same labels", "ms an image"]
    cells = [
        [row.runtime, row.version, f"{row.furthest:.1e}", "yes" if row.same_labels else "no", f"{row.image_ms:.1f}"]
        for row in rows
    ]
    table(header, cells)
    for row in rows:
        name = re.sub(r"\W+", "_", row.runtime.lower())
        result(f"runtimes_{name}_largest_difference", row.furthest, "", ELSEWHERE, row.furthest <= ELSEWHERE)


if __name__ == "__main__":
    main()
