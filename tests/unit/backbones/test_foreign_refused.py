"""An ONNX graph that is no extractor of images' features, or not the one that was meant, is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from headstart import params_file
from headstart.backbones import export, foreign, networks
from headstart.backbones.export import export_foreign
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sha256_of
from headstart.embedding import engines
from headstart.layout import Layout
from tests.support import graphs
from tests.support.backbones import settings
from tests.support.foreign import loaded, refusal, run
from tests.support.graphs import PREPARED, node
from tests.support.images import ROOT
from tests.support.server import Server


@pytest.mark.parametrize("kind", ["bundled", "default", "random"])
def test_a_graph_has_to_be_a_file_or_a_url(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="The file or the URL of an ONNX graph was expected"):
        foreign.load(settings(name="onnx", weights=kind), tmp_path, print)


def test_a_url_is_verified_by_its_digest(tmp_path: Path, server: Server) -> None:
    graphs.saved(graphs.nchw(), tmp_path / "net.onnx")
    server.files["/net.onnx"] = (tmp_path / "net.onnx").read_bytes()
    url, digest = f"{server.url}/net.onnx", sha256_of(tmp_path / "net.onnx")
    found = foreign.load(settings(name="onnx", weights=url, sha256=digest, **PREPARED), tmp_path / "weights", print)
    assert found.weights_sha256 == digest
    with pytest.raises(ParamError, match=f"{'ab' * 32} was expected. The download was removed"):
        foreign.load(settings(name="onnx", weights=url, sha256="ab" * 32, **PREPARED), tmp_path / "other", print)


def test_a_graph_with_another_digest_is_refused(tmp_path: Path) -> None:
    message = refusal(graphs.nchw(), tmp_path, sha256="ab" * 32)
    assert f"{'ab' * 32} was expected. Make sure that it is the file you want" in message


def test_a_file_that_is_no_graph_is_told(tmp_path: Path) -> None:
    for data in (b"no graph", b""):
        (tmp_path / "net.onnx").write_bytes(data)
        given = {"weights": str(tmp_path / "net.onnx"), "sha256": sha256_of(tmp_path / "net.onnx")}
        with pytest.raises(ParamError, match=r"net.onnx holds no ONNX graph. Set backbone.weights"):
            foreign.load(settings(name="onnx", **given, **PREPARED), tmp_path, print)


def test_what_takes_no_images_is_no_extractor(tmp_path: Path) -> None:
    tokens = graphs.model(
        [node("Gather", ["w", "images"], ["logits"])],
        ("N", "T"),
        tensors=graphs.weights(w=(9, 4)),
        type_=TensorProto.INT64,
    )
    assert refusal(tokens, tmp_path) == (
        "net.onnx is no extractor of images' features: its input is images, int64 [N, T]. One input of images was"
        " expected, [N, 3, H, W] or [N, H, W, 3] in float32, float16, float64 or uint8. Choose another backbone.weights"
        " in params.yaml."
    )
    two = graphs.nchw()
    two.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", 4]))
    assert "its input is images, float [N, 3, 32, 32]; mask, bool [N, 4]." in refusal(two, tmp_path)
    assert "no extractor of square images' features" in refusal(graphs.nchw(image=("N", 3, 32, 48)), tmp_path)
    assert "no extractor of square images' features" in refusal(graphs.nchw(image=("N", 1, 32, 32)), tmp_path)


def test_a_tensor_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    assert refusal(graphs.nhwc(), tmp_path, outputs=["avg_pool/Mean"]) == (
        "backbone.outputs names 'avg_pool/Mean', which is none of the graph's 10 tensors. The nearest names are"
        " avg_pool/Mean:0, pool. Set backbone.outputs in params.yaml, or set it to null to have it found."
    )
    assert "names a tensor twice" in refusal(graphs.nchw(), tmp_path, outputs=["flat", "flat"])


def test_a_tensor_that_holds_no_features_is_told(tmp_path: Path) -> None:
    graph = graphs.nchw()
    graph.graph.node.append(node("Shape", ["flat"], ["size"]))
    graph.graph.node.append(node("Sub", ["flat", "flat"], ["zero"]))
    graph.graph.node.append(node("Div", ["flat", "zero"], ["infinite"]))
    said = refusal(graph, tmp_path, outputs=["size"])
    assert "the tensor 'size' has the shape [N, ] and int64, which are no features" in said
    said = refusal(graph, tmp_path, outputs=["infinite"])
    assert "the tensor 'infinite' has the shape [N, 12] and values that are not finite, which are no features" in said


def test_weights_beside_the_file_are_refused(tmp_path: Path) -> None:
    graph = graphs.nchw()
    file = tmp_path / "big.onnx"
    onnx.save(graph, file, save_as_external_data=True, location="big.bin", size_threshold=0)
    given = {"weights": str(file), "sha256": sha256_of(file)}
    with pytest.raises(ParamError) as error:
        foreign.load(settings(name="onnx", **given, **PREPARED), tmp_path, print)
    assert str(error.value) == (
        "big.onnx keeps 4 of its tensors in other files (w1, w2, w3, ...), which backbone.sha256 does not vouch for."
        " Write one file, `onnx.save(onnx.load(OLD), NEW)`, and set backbone.weights and backbone.sha256 in params.yaml"
        " to it."
    )


def test_custom_operators_are_refused_by_name(tmp_path: Path) -> None:
    graph = graphs.nchw()
    graph.graph.node[1].CopyFrom(node("FusedGelu", ["c1"], ["r1"], domain="com.microsoft"))
    graph.graph.node[3].CopyFrom(node("Swoosh", ["c2"], ["r2"]))
    graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert refusal(graph, tmp_path).startswith(
        "net.onnx has 2 operators that are not ONNX's own (ai.onnx.Swoosh, com.microsoft.FusedGelu), and a runtime"
    )


def test_an_unknown_preparation_is_asked_for_and_usual_values_are_named(tmp_path: Path) -> None:
    message = refusal(graphs.nchw(), tmp_path, mean=None, interpolation=None)
    assert message.startswith(
        "backbone.interpolation and backbone.mean are null, and an ONNX graph does not say how its images were"
        " prepared. Its publisher does. Usual are crop_fraction 0.875, interpolation bilinear and, for pixels scaled to"
        " 0..1, mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225]"
    )


def test_a_piece_that_differs_from_the_graph_is_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = export.foreign_graph.reference_values
    monkeypatch.setattr(
        export.foreign_graph, "reference_values", lambda *given: [each * 1.1 for each in honest(*given)]
    )
    with pytest.raises(CheckError, match="the features of onnx/net, cut and converted, differ from those of the graph"):
        export_foreign(loaded(graphs.nchw(), tmp_path))


def test_a_licence_that_may_not_ship_ends_the_run(tmp_path: Path) -> None:
    given = graphs.saved(graphs.nchw(), tmp_path / "net.onnx")
    with pytest.raises(ParamError, match="the licence of the weights of 'onnx' is unknown"):
        run(Layout(tmp_path), **given, **PREPARED)
    assert not (tmp_path / "artifacts").exists()


def test_what_trains_or_runs_in_pytorch_refuses_a_graph(tmp_path: Path) -> None:
    values = params_file.load(ROOT / "params.yaml")
    with pytest.raises(ParamError, match="can be run but not trained"):
        networks.load(settings(name="onnx", weights="net.onnx"), tmp_path, print)
    with pytest.raises(ParamError, match=r"embed.engine is 'torch', and the backbone is an ONNX graph"):
        engines.kind("torch", is_in_torch=False)
    given = graphs.saved(graphs.nchw(), tmp_path / "net.onnx")
    run(Layout(tmp_path), **given, **PREPARED, licence="MIT")
    with pytest.raises(ParamError, match="the backbone is onnx/net, an ONNX graph, which PyTorch cannot run"):
        networks.rebuilt(Layout(tmp_path).backbone)
    assert values.embed.engine == "auto"


def test_auto_takes_onnxruntime_for_a_graph_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_has_gpu_driver", lambda: True)
    monkeypatch.setattr(engines, "_cuda", lambda: True)
    assert engines.kind("auto", is_in_torch=False).name == "onnxruntime"
    assert engines.kind("auto").name == "torch"
