from __future__ import annotations

import tempfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headstart.handover import quantization
from headstart.handover.folder import Try
from headstart.handover.int8_trial import choose
from headstart.onnx import pieces, runtime


def pair(n: int, n_lost: int, n_won: int = 0) -> tuple[np.ndarray, np.ndarray]:
    in_float, in_int8 = np.ones((2, n), bool)
    in_int8[:n_lost] = in_float[n_lost : n_lost + n_won] = False
    return in_float, in_int8


@pytest.mark.parametrize(
    ("n", "n_lost", "is_shown"), [(100, 0, False), (326, 0, False), (328, 0, True), (2000, 5, True)]
)
def test_a_drop_is_small_only_where_the_images_can_show_it(n: int, n_lost: int, is_shown: bool) -> None:
    lost, at_most = quantization.drop(*pair(n, n_lost), np.arange(n))
    assert lost == pytest.approx(n_lost / n)
    assert (at_most <= 0.005) is is_shown


def test_the_bound_holds_nineteen_times_in_twenty() -> None:
    random = np.random.default_rng(0)
    held = []
    for _ in range(500):
        draw = random.random(400)
        in_float, in_int8 = draw > 0.01, (draw > 0.02) | (draw < 0.004)  # 1 % lost, 0.4 % won
        held.append(quantization.drop(in_float, in_int8, np.arange(400))[1] >= 0.006)
    assert 0.92 < np.mean(held) < 0.98


def test_images_of_one_group_make_a_drop_less_sure() -> None:
    groups = np.arange(1000)
    groups[:10] = 0
    apart, together = (quantization.drop(*pair(1000, 10), each)[1] for each in (np.arange(1000), groups))
    assert together > 1.3 * apart


def tried(drop_high: float, speedup: float, allowed: float = 0.005) -> Try:
    return Try(
        name=f"{drop_high} {speedup}",
        accuracy=0.9,
        drop=0.0,
        drop_high=drop_high,
        is_acceptable=drop_high <= allowed,
        speedup=speedup,
        n_bytes=1000,
        chosen=False,
    )


def test_the_fastest_that_keeps_the_accuracy_is_chosen() -> None:
    chosen, why = choose([tried(0.001, 1.5), tried(0.004, 2.0), tried(0.02, 3.0)], 0.005, 1000)
    assert chosen == 1
    assert "it is 2.00 times as fast as float32 and loses at most 0.40% of accuracy" in why


def test_none_is_chosen_where_none_is_good_enough_or_faster_and_it_says_so() -> None:
    chosen, why = choose([tried(0.02, 3.0), tried(0.01, 2.0)], 0.005, 1000)
    assert chosen is None
    assert "may lose up to 1.00% of accuracy, but only 0.50% is allowed. export" in why
    assert "20 validation images are too few to show this" in choose([tried(0.07, 3.0)], 0.005, 20)[1]
    chosen, why = choose([tried(0.001, 0.9)], 0.005, 1000)
    assert chosen is None
    assert "0.90 times the speed" in why


@pytest.fixture
def backbone() -> bytes:
    """A small network of the usual kind: scale the pixels, convolve thrice, average."""
    random = np.random.default_rng(0)
    weights = {
        "scale": np.float32(1 / 128),
        "first": random.normal(size=(8, 3, 3, 3)).astype(np.float32) / 5,
        "second": random.normal(size=(8, 8, 3, 3)).astype(np.float32) / 8,
        "third": random.normal(size=(16, 8, 3, 3)).astype(np.float32) / 8,
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["cast"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"], "scale"),
        helper.make_node("Conv", ["scaled", "first"], ["one"], "conv1"),
        helper.make_node("Relu", ["one"], ["two"], "relu1"),
        helper.make_node("Conv", ["two", "second"], ["three"], "conv2"),
        helper.make_node("Relu", ["three"], ["four"], "relu2"),
        helper.make_node("Conv", ["four", "third"], ["five"], "conv3"),
        helper.make_node("Relu", ["five"], ["six"], "relu3"),
        helper.make_node("ReduceMean", ["six", "axes"], ["features"], "mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 16, 16, 3])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
        + [numpy_helper.from_array(np.array([2, 3]), "axes")],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", pieces.OPSET)])
    return pieces.to_bytes(model)


def test_every_way_gives_a_model_of_integers_that_says_nearly_the_same(backbone: bytes) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 16, 16, 3), np.uint8)
    expected = runtime.session(backbone).run(None, {"pixels": pixels})[0]
    made = list(quantization.quantised(backbone, pixels))
    assert [way for way, _ in made] == list(quantization.WAYS)
    for way, data in made:
        found = runtime.session(data).run(None, {"pixels": pixels})[0]
        assert runtime.difference(found, expected).relative < (0.2 if way.reduce_range else 0.1), way
        assert b"QuantizeLinear" in data
        assert tempfile.gettempdir().encode() not in data
    assert len({data for _, data in made if _}) == len(made)
    assert [data for _, data in quantization.quantised(backbone, pixels)] == [data for _, data in made]


def test_a_network_that_cannot_be_quantised_is_an_error_of_its_own(backbone: bytes) -> None:
    images = np.zeros((1, 16, 16, 3), np.uint8)
    mean = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["cast"], ["features"], keepdims=0),
            ],
            "backbone",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 16, 16, 3])],
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [])],
        ),
        ir_version=10,
        opset_imports=[helper.make_opsetid("", pieces.OPSET)],
    )
    with pytest.raises(quantization.QuantizationError, match="no node is one of Conv, Gemm, MatMul"):
        list(quantization.quantised(pieces.to_bytes(mean), images))
    with pytest.raises(quantization.QuantizationError, match="INVALID_ARGUMENT"):
        list(quantization.quantised(backbone, images[:, 1:]))


def test_the_processor_is_named_by_its_instructions() -> None:
    assert quantization.instruction_set()
    assert "/" not in quantization.instruction_set()
