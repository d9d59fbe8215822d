"""`headstart verify --runtime`: what is said of a runtime that agrees, differs, refuses the model or is not installed.

The model of format 1 resizes by ONNX's antialiased Resize, which OpenVINO computes otherwise, so it differs there for
ever. That newer models agree is shown by tests/pipeline/test_other_runtimes.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from headstart.base.errors import CheckError
from headstart.commands import main as cli
from headstart.handover import runtimes
from tests.support.images import ROOT

MODEL = ROOT / "tests" / "models" / "format-1"
REPORTED = (
    r"verify: {name} \d+\.\d+.* supports every operator of the model, opset 18\nverify: 9 conformance images agree"
)


def test_onnxruntime_is_the_one_that_is_asked_without_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(MODEL)]) == 0
    said = capsys.readouterr().out
    assert re.search(REPORTED.format(name="onnxruntime"), said)
    assert re.search(r"agree (exactly|to \de-\d\d), same labels, [\d.]+ ms an image", said)


def test_each_runtime_is_told_of_and_one_that_differs_ends_in_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(MODEL), "--runtime", "openvino", "--runtime", "onnxruntime"]) == 1
    said = capsys.readouterr()
    assert "verify: openvino FAILS" in said.out
    assert re.search(REPORTED.format(name="onnxruntime"), said.out)
    differs = r"\d of 9 conformance images differ in openvino \d.+ by up to .+ At most 1e-03 was expected\."
    assert re.search(differs, said.err)
    assert "Do not use the model in it" in said.err


@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("reference", "onnx")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["verify", str(MODEL), "--runtime", name]) == 1
    said = capsys.readouterr().err
    assert f"--runtime {name} needs the package {package}, which is not installed. Run `pip install {package}`." in said


@pytest.mark.parametrize("name", runtimes.NAMES)
def test_a_model_with_an_unknown_operator_is_refused_with_what_the_runtime_says(name: str, tmp_path: Path) -> None:
    shape = ["N", "H", "W", 3]
    graph = make_graph(
        [make_node("Sharpen", ["image"], ["probabilities"], domain="nowhere")],
        "odd",
        [make_tensor_value_info("image", onnx.TensorProto.UINT8, shape)],
        [make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, shape)],
    )
    file = tmp_path / "model.onnx"
    opsets = [make_opsetid("", 18), make_opsetid("nowhere", 1)]
    onnx.save(make_model(graph, opset_imports=opsets, ir_version=10), file)
    with pytest.raises(CheckError, match=r"Sharpen|nowhere"):
        runtimes.opened(name, file).run(np.zeros((1, 8, 8, 3), np.uint8))
