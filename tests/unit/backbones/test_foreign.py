"""An ONNX graph of another framework goes the way of every backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.export import export_foreign, photographs
from headstart.onnx import pieces, runtime
from tests.support import graphs
from tests.support.foreign import by_hand, features_of, loaded, refusal
from tests.support.graphs import CHANNELS, CLASSES, PX, node


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
