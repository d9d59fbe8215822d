"""The examples of docs/handover.md, in Python without headstart and in Node: the conformance images' probabilities."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.images import ROOT
from tests.support.projects import Project

EXAMPLES = ROOT / "examples"
CLOSE = 1e-3


def assert_agrees(said: str, model: Path) -> None:
    expected = json.loads((model / "conformance" / "expected.json").read_text())["images"]
    answers = [json.loads(line) for line in said.splitlines()]
    assert len(answers) == len(expected) > 8
    for answer, vector in zip(answers, expected, strict=True):
        apart = np.abs(np.array(answer["probabilities"]) - vector["probabilities"]).max()
        assert apart < CLOSE, (vector["file"], apart)
        assert answer["label"] == vector["label"]


def images_of(model: Path) -> list[str]:
    expected = json.loads((model / "conformance" / "expected.json").read_text())["images"]
    return [str(model / "conformance" / vector["file"]) for vector in expected]


def test_the_python_example_agrees(base: Project, tmp_path: Path) -> None:
    model = base.root / "artifacts" / "model"
    command = [sys.executable, str(EXAMPLES / "python" / "predict.py"), str(model), *images_of(model)]
    assert_agrees(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout, model)


def test_onnxruntime_for_node_agrees(base: Project, tmp_path: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on the PATH: install it, such as by `apt install nodejs npm`")
    model = base.root / "artifacts" / "model"
    for file in (EXAMPLES / "node").iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    environment = {**os.environ, "ONNXRUNTIME_NODE_INSTALL": "skip"}  # it would fetch libraries for GPUs
    subprocess.run([npm, "install", *quiet], cwd=tmp_path, env=environment, capture_output=True, check=True)
    done = subprocess.run(
        ["node", "predict.mjs", str(model), *images_of(model)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert_agrees(done.stdout, model)


def test_the_examples_stand_in_the_documentation_as_they_were_tried() -> None:
    page = (ROOT / "docs" / "handover.md").read_text()
    for file in ("python/predict.py", "node/predict.mjs", "cpp/predict.cpp"):
        assert (EXAMPLES / file).read_text().strip() in page, file
