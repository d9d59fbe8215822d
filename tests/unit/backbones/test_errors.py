"""A backbone that cannot be had is one line on the terminal, with what to do, and leaves nothing behind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart import params_file
from headstart.base.errors import ParamError
from tasks import __main__ as tasks
from tests.support import graphs
from tests.support.graphs import PREPARED, node
from tests.support.images import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """Return what the stage `backbone` says when it ends."""
    params_file.assign(Path("params.yaml"), [f"backbone.{name}={value}" for name, value in changes.items()])
    assert tasks.main(["backbone"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert list(Path("artifacts").rglob("*")) == []
    return line


def of(graph: onnx.ModelProto) -> dict[str, object]:
    return {"name": "onnx", "licence": "MIT", **graphs.saved(graph, Path("net.onnx")), **PREPARED}


def no_extractor() -> onnx.ModelProto:
    tokens = [node("Gather", ["w", "images"], ["logits"])]
    return graphs.model(tokens, ("N", "T"), tensors=graphs.weights(w=(9, 4)), type_=TensorProto.INT64)


def branched(operator: onnx.NodeProto, *tensors: onnx.TensorProto) -> onnx.ModelProto:
    """Return a graph that has an operator in a branch alone."""
    graph = graphs.nchw()
    value = helper.make_tensor_value_info("in_branch", TensorProto.FLOAT, None)
    plain = helper.make_graph([node("Identity", ["c1"], ["in_branch"])], "plain", [], [value])
    odd = helper.make_graph([operator], "odd", [], [value], list(tensors))
    graph.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.graph.node[1].CopyFrom(node("If", ["yes"], ["r1"], then_branch=plain, else_branch=odd))
    if operator.domain:
        graph.opset_import.append(helper.make_opsetid(operator.domain, 1))
    return graph


def custom() -> onnx.ModelProto:
    return branched(node("FusedGelu", ["c1"], ["in_branch"], domain="com.microsoft"))


def outside() -> onnx.ModelProto:
    tensor = graphs.weights(far=(1,))[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="net.bin")
    return branched(node("Add", ["c1", "far"], ["in_branch"]), tensor)


CASES: dict[str, tuple[Callable[[], dict[str, object]], str]] = {
    "an unknown name": (
        lambda: {"name": "resnt50"},
        "backbone: backbone.name is 'resnt50', which is not known. Did you mean 'resnet50'? Set backbone.name in",
    ),
    "weights without a licence": (
        lambda: {"name": "mobilenet_v2"},
        "backbone: the licence of the weights of 'mobilenet_v2' is unknown (torchvision, which trained them, does not"
        " say;",
    ),
    "a graph without a licence": (
        lambda: {**of(graphs.nchw()), "licence": "null"},
        "backbone: the licence of the weights of 'onnx' is unknown (they are a file that you gave). To ship, it must",
    ),
    "no extractor": (
        lambda: of(no_extractor()),
        "backbone: net.onnx is no extractor of images' features: its input is images, int64 [N, T]. One input of",
    ),
    "no ONNX at all": (
        lambda: of(onnx.ModelProto()),
        "backbone: net.onnx holds no ONNX graph. Set backbone.weights in params.yaml to a file that onnx.load reads.",
    ),
    "outputs that are not there": (
        lambda: {**of(graphs.nchw()), "outputs": "[flatt]"},
        "backbone: backbone.outputs names 'flatt', which is none of the graph's 7 tensors. The nearest names are flat",
    ),
    "a size that nothing says": (
        lambda: of(graphs.nchw(image=("N", 3, "H", "W"))),
        "backbone: the input 'images' of the graph takes images of any size, and backbone.input_px is null. A size was",
    ),
    "weights in another file": (
        lambda: of(outside()),
        "backbone: net.onnx keeps 1 of its tensors in other files (far), which backbone.sha256 does not vouch for. W",
    ),
    "another digest": (
        lambda: {**of(graphs.nchw()), "sha256": "ab" * 32},
        f"{'ab' * 32} was expected. Make sure that it is the file you want, then mend backbone.sha256 in params.yaml.",
    ),
    "custom operators": (
        lambda: of(custom()),
        "backbone: net.onnx has 1 operators that are not ONNX's own (com.microsoft.FusedGelu), and a runtime without",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_stage_ends_with_one_line_that_says_what_to_do(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, expected = CASES[case]
    assert expected in refusal(capsys, **changes())


def test_fine_tuning_a_graph_is_refused_before_anything_runs() -> None:
    params_file.assign(Path("params.yaml"), [f"backbone.{name}={value}" for name, value in of(graphs.nchw()).items()])
    with pytest.raises(
        ParamError, match=r"is true and backbone.name is 'onnx'\. Such a graph can be run but not trained"
    ):
        params_file.assign(Path("params.yaml"), ["finetune.enabled=true"])
