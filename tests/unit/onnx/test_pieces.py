from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from headstart.backbones.graph import backbone_graph, trace
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import CheckError
from headstart.heads.graph import head_graph
from headstart.heads.linear import Linear
from headstart.heads.novelty import Novelty
from headstart.onnx import pieces, runtime
from headstart.onnx.resize import resize_graph

SMALL = Preprocessing(8, 0.8, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def some_novelty(weight: np.ndarray) -> Novelty:
    return Novelty(weight / np.linalg.norm(weight, axis=0), np.linspace(-1, 1, 20).astype(np.float32))


def test_who_asks_for_the_whole_image_gets_all_of_it() -> None:
    own = Preprocessing(224, 0.875, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert own.fitted("crop", None) == own
    padded = own.fitted("pad", None)
    assert (padded.resize_px, padded.input_px, padded.bar_level) == (224, 224, 128)
    assert own.fitted("squeeze", 0.875).resize_px == 256
    assert Preprocessing.of(padded.record) == padded
    assert own.record.seen == "only the centre square of an image"
    assert padded.record.seen == "the whole image, padded to a square with grey bars"
    assert own.fitted("squeeze", 0.875).record.seen == (
        "the whole image, squeezed to a square, and of that the middle 88%"
    )


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images).mean((2, 3))


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny().eval()


def test_crop_and_normalisation_are_inside_the_backbone(tiny: nn.Module) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 10, 10, 3), np.uint8)
    session = runtime.session(pieces.to_bytes(backbone_graph(trace(tiny, SMALL))))
    centre = torch.from_numpy(pixels[:, 1:9, 1:9].astype(np.float32) / 255).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (SMALL.mean, SMALL.std))
    with torch.no_grad():
        expected = tiny((centre - mean) / std).numpy()
    for n_images in (1, 4):
        found = session.run(None, {"pixels": pixels[:n_images]})[0]
        assert runtime.difference(found, expected[:n_images]).relative < 1e-5


def test_the_same_module_gives_the_same_bytes_without_a_trace_of_this_machine(tiny: nn.Module) -> None:
    first, second = (pieces.to_bytes(backbone_graph(trace(tiny, SMALL))) for _ in range(2))
    assert first == second
    assert str(Path.cwd()).encode() not in first
    assert b".py" not in first


def test_the_joined_graph_gives_what_the_pieces_give_one_after_another(tiny: nn.Module) -> None:
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(5, 4)).astype(np.float32), random.normal(size=4).astype(np.float32)
    resize, backbone = (
        resize_graph(SMALL.resize_px, SMALL.interpolation),
        backbone_graph(trace(tiny, SMALL)),
    )
    head = head_graph(Linear(weight, bias), some_novelty(weight))
    model = pieces.to_bytes(pieces.join(resize, backbone, head, {"classes": '["a"]'}))
    images = random.integers(0, 256, (3, 17, 31, 3), np.uint8)
    pixels = runtime.session(pieces.to_bytes(resize)).run(None, {"image": images})[0]
    features = runtime.session(pieces.to_bytes(backbone)).run(None, {"pixels": pixels})[0]
    expected = runtime.session(pieces.to_bytes(head)).run(None, {"features": features})
    assert len(expected) == 3
    session = runtime.session(model)
    probabilities, label_index, novelty = session.run(None, {"image": images})
    assert np.array_equal(probabilities, expected[0])
    assert np.array_equal(label_index, expected[1])
    assert np.array_equal(novelty, expected[2])
    assert probabilities.dtype == novelty.dtype == np.float32
    assert label_index.dtype == np.int64
    assert session.get_modelmeta().custom_metadata_map == {"classes": '["a"]'}
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("image", "tensor(uint8)", ["N", "H", "W", 3])
    ]
    onnx.checker.check_model(onnx.load(io.BytesIO(model)), full_check=True)


def test_probabilities_are_the_softmax_of_the_gemm() -> None:
    random = np.random.default_rng(0)
    features, weight, bias = (random.normal(size=shape).astype(np.float32) for shape in ((6, 3), (3, 4), (4,)))
    found = runtime.session(pieces.to_bytes(head_graph(Linear(weight, bias), some_novelty(weight)))).run(
        None, {"features": features}
    )
    scores = np.exp(features @ weight + bias)
    assert np.allclose(found[0], scores / scores.sum(1, keepdims=True), atol=1e-6)
    assert np.array_equal(found[1], scores.argmax(1))


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CheckError, match=r"model\.onnx cannot be loaded by onnxruntime"):
        runtime.session(tmp_path / "model.onnx")


def test_differences_are_told_absolutely_and_relative_to_the_reference() -> None:
    reference = np.full((2, 2), 4.0, np.float32)
    assert runtime.difference(reference + 2, reference) == (2.0, 0.5)
    assert runtime.difference(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
