"""A backbone that was exported before comes from the cache: the same bytes, without torch; never another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from headstart import params_file
from headstart.backbones import kept
from headstart.base.errors import ParamError
from headstart.base.files import sums
from headstart.layout import Layout
from tasks import backbone as stage
from tests.support import graphs
from tests.support.backbones import settings
from tests.support.images import ROOT

SMALL = {"name": "test_resnet", "weights": "random"}


def run(layout: Layout, licences: object = None, **changes: object) -> None:
    values = params_file.load(ROOT / "params.yaml")
    values = values.model_copy(update={"backbone": settings(**{**SMALL, **changes})})
    if licences:
        values = values.model_copy(update={"export": values.export.model_copy(update={"licences": licences})})
    stage.run(values, layout)


def layout_of(folder: Path, name: str) -> Layout:
    """Return a project of its own on the cache of `folder`."""
    return Layout(folder / name, cache_dir=str(folder / "cache"))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = layout_of(tmp_path_factory.mktemp("kept"), "first")
    run(layout)
    return layout


def test_a_second_project_gets_the_same_bytes_as_without_the_cache_and_imports_no_torch(first: Layout) -> None:
    without = replace(layout_of(first.root.parent, "without"), keeps_backbones=False)
    run(without)
    second = layout_of(first.root.parent, "second")
    second.root.mkdir()
    (second.root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    changes = [f"cache.dir={second.cache_dir}", *(f"backbone.{name}={value}" for name, value in SMALL.items())]
    params_file.assign(second.root / "params.yaml", changes)
    code = (
        "import sys, tasks.__main__ as tasks; from pathlib import Path; tasks._run('backbone', Path());"
        " print(sorted({'torch', 'torchvision', 'timm', 'onnx', 'onnxruntime'} & sys.modules.keys()))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=second.root, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "timm/test_resnet was exported from the same weights before: it is taken from the cache" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
    assert sums(second.backbone) == sums(first.backbone) == sums(without.backbone)


def test_the_cache_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = of_graph(tmp_path)
    for number, keeps in enumerate((False, True, False)):
        run(replace(layout_of(tmp_path, f"{number}"), keeps_backbones=keeps), **given)
    assert "taken from the cache" not in capsys.readouterr().out
    run(layout_of(tmp_path, "last"), **given)
    assert "taken from the cache" in capsys.readouterr().out


def of_graph(folder: Path) -> dict[str, object]:
    """Return a backbone that is exported in no time."""
    return {"name": "onnx", **graphs.saved(graphs.nchw(), folder / "net.onnx"), **graphs.PREPARED, "licence": "MIT"}


def test_a_damaged_copy_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = of_graph(tmp_path)
    run(layout_of(tmp_path, "one"), **given)
    (path,) = (tmp_path / "cache" / "results" / "backbone").glob("*/backbone.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    run(layout_of(tmp_path, "two"), **given)
    assert "taken from the cache" not in capsys.readouterr().out
    assert sums(layout_of(tmp_path, "two").backbone) == sums(layout_of(tmp_path, "one").backbone)
    run(layout_of(tmp_path, "three"), **given)
    assert "taken from the cache" in capsys.readouterr().out


def key(**changes: object) -> str | None:
    return kept.made_for(settings(**{**SMALL, **changes}), "crop")


def test_what_an_export_follows_from_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = graphs.saved(graphs.nchw(), tmp_path / "net.onnx")
    keys = [
        key(),
        kept.made_for(settings(**SMALL), "pad"),
        key(name="resnet18"),
        key(input_px=96),
        key(mean=[0.1, 0.2, 0.3]),
        key(name="tf_efficientnet_lite0", weights="bundled"),
        key(name="mobilenet_v2", weights="bundled"),
        key(name="onnx", **given),
        key(name="onnx", **given, outputs=["r1"]),
        key(name="onnx", **given, licence="MIT"),
    ]
    assert None not in keys
    honest = kept.version
    monkeypatch.setattr(kept, "version", lambda name: "0" if name == "torch" else honest(name))
    keys.append(key())
    monkeypatch.setattr(kept, "version", honest)
    monkeypatch.setattr(kept, "VERSION", 0)
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_file_is_known_by_its_bytes_and_not_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = graphs.saved(graphs.nchw(), tmp_path / "net.onnx")
    other = graphs.saved(graphs.nchw(), tmp_path / "other" / "net.onnx")
    assert key(name="onnx", **one) == key(name="onnx", **other)
    changed = graphs.saved(graphs.nchw(image=(1, 3, 32, 32)), tmp_path / "net.onnx")
    assert key(name="onnx", **changed) != key(name="onnx", **other)
    with pytest.raises(ParamError, match=r"was expected. Make sure that it is the file you want"):
        key(name="onnx", **{**one, "weights": changed["weights"]})


def test_a_licence_that_may_not_ship_is_refused_from_the_cache_too(tmp_path: Path) -> None:
    given = {"name": "onnx", **graphs.saved(graphs.nchw(), tmp_path / "net.onnx"), **graphs.PREPARED}
    run(layout_of(tmp_path, "one"), licences="any", **given)
    with pytest.raises(ParamError, match="the licence of the weights of 'onnx' is unk"):
        run(layout_of(tmp_path, "two"), **given)
    assert not layout_of(tmp_path, "two").backbone.exists()


def test_warnings_are_told_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = graphs.nchw()
    graph.graph.initializer[1].CopyFrom(graphs.weights(w2=(12, 8, 3, 3))[0])
    for value in graph.graph.initializer:
        if value.name == "w2":
            value.raw_data = bytes(len(value.raw_data))
    given = {"name": "onnx", **graphs.saved(graph, tmp_path / "net.onnx"), **graphs.PREPARED, "licence": "MIT"}
    for name in ("one", "two"):
        run(layout_of(tmp_path, name), **given)
        said = capsys.readouterr()
        assert "warning: 12 of 12 of the features of the level 'last'" in said.out + said.err


FIELDS = (
    "name weights weights_sha256 licence licence_source n_features levels preprocessing source hub"
    " resize_onnx_sha256 backbone_onnx_sha256 backbone_safetensors_sha256 versions warnings"
)
OF_RESIZE = (
    "Abs 1 Add 12 Cast 14 Clip 2 Concat 4 Div 6 Floor 6 Gather 1 MatMul 22 Max 4 Min 3 Mul 15 Range 1 ReduceSum 1"
    " Reshape 10 Shape 2 Slice 25 Split 6 Squeeze 1 Sub 6 Transpose 3 Unsqueeze 1"
)
OF_BACKBONE = (
    "Add 8 AveragePool 3 Cast 1 Concat 1 Conv 15 Gather 1 MaxPool 1 Mul 2 Range 1 ReduceMean 4 Relu 12 Reshape 2"
    " Shape 1 Slice 2 Squeeze 1 Transpose 1 Unsqueeze 1"
)
OF_GRAPH = "Add 1 Cast 3 Conv 2 Flatten 1 GlobalAveragePool 1 Mul 1 Relu 2 Slice 1 Transpose 1"


def structure(path: Path) -> str:
    """Return the operators of a graph and how often each is there."""
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    return " ".join(f"{kind} {kinds.count(kind)}" for kind in sorted(set(kinds)))


def test_another_export_needs_another_version(first: Layout, tmp_path: Path) -> None:
    """An export is kept while `kept.VERSION` is the same: raise it with every change of these expectations."""
    of_graph_of_ours = layout_of(tmp_path, "graph")
    run(of_graph_of_ours, **of_graph(tmp_path))
    assert kept.VERSION == 3
    assert " ".join(json.loads((first.backbone / "backbone.json").read_text())) == FIELDS
    assert structure(first.backbone / "resize.onnx") == OF_RESIZE
    assert structure(first.backbone / "backbone.onnx") == OF_BACKBONE
    assert structure(of_graph_of_ours.backbone / "backbone.onnx") == OF_GRAPH
