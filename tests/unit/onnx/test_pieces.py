from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from headstart.backbones.graph import backbone_graph, resize_graph, trace
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import CheckError
from headstart.heads.graph import head_graph
from headstart.heads.linear import Linear
from headstart.heads.novelty import Novelty
from headstart.images import decode
from headstart.onnx import pieces, runtime
from headstart.onnx.backbone_folder import Fit

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BAR = 77  # the grey of bars
SMALL = Preprocessing(8, 0.8, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def some_novelty(weight: np.ndarray) -> Novelty:
    return Novelty(weight / np.linalg.norm(weight, axis=0), np.linspace(-1, 1, 20).astype(np.float32))


def resized(image: np.ndarray, size_px: int, interpolation: str, fit: Fit = "crop") -> np.ndarray:
    session = runtime.session(pieces.to_bytes(resize_graph(size_px, interpolation, fit, BAR)))
    return session.run(None, {"image": image[None]})[0][0]


def pillows(image: np.ndarray, size_px: int, interpolation: str, fit: Fit = "crop") -> np.ndarray:
    height, width = image.shape[:2]
    if fit == "squeeze":
        return np.asarray(Image.fromarray(image).resize((size_px, size_px), PILLOW[interpolation]))
    if fit == "pad":
        inner = [max(1, int(side * size_px / max(height, width) + 0.5)) for side in (width, height)]
        square = Image.new("RGB", (size_px, size_px), (BAR, BAR, BAR))
        within = Image.fromarray(image).resize(inner, PILLOW[interpolation])
        square.paste(within, tuple((size_px - side) // 2 for side in inner))
        return np.asarray(square)
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    square = Image.fromarray(image).crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size_px, size_px), PILLOW[interpolation]))


def apart(image: np.ndarray, size_px: int, interpolation: str, fit: Fit = "crop") -> np.ndarray:
    """Return by how many levels each channel of each pixel differs from Pillow's, int [S, S, 3]."""
    found, expected = (each(image, size_px, interpolation, fit).astype(int) for each in (resized, pillows))
    return np.abs(found - expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_px", [64, 256, 700])
def test_photographs_are_resized_as_pillow_does_up_and_down(
    hymenoptera: Path, interpolation: str, size_px: int
) -> None:
    for path in sorted((hymenoptera / "train" / "bees").iterdir())[:6]:
        levels = apart(decode(path.read_bytes()).rgb, size_px, interpolation)
        # In a bilinear reduction onnxruntime repeats the outermost pixel beyond the edge, and Pillow leaves it out.
        inner = levels[1:-1, 1:-1] if interpolation == "bilinear" else levels
        assert inner.max() <= 2
        assert (inner > 1).mean() < 0.0001
        assert (inner > 0).mean() < 0.02
        if size_px >= 256:
            assert levels.max() <= 9
            assert (levels > 1).mean() < 0.01


@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 120), st.integers(0, 1000))
def test_noise_of_any_shape_is_resized_as_pillow_does(height: int, width: int, size_px: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert apart(image, size_px, "bicubic").max() <= 2
    if size_px >= min(height, width):
        assert apart(image, size_px, "bilinear").max() <= 2


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 120), st.integers(0, 1000))
def test_the_whole_of_any_shape_is_fitted_as_pillow_does(
    fit: Fit, height: int, width: int, size_px: int, seed: int
) -> None:
    # Within this range the cubic kernel gives nothing beyond 0..255, which would be cut off between the two passes,
    # across and down. Pillow and onnxruntime do these in another order.
    image = np.random.default_rng(seed).integers(64, 192, (height, width, 3), np.uint8)
    assert apart(image, size_px, "bicubic", fit).max() <= 2


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photographs_are_fitted_whole(hymenoptera: Path, interpolation: str, fit: Fit) -> None:
    for path in sorted((hymenoptera / "train" / "bees").iterdir())[:4]:
        levels = apart(decode(path.read_bytes()).rgb, 224, interpolation, fit)
        assert levels.max() <= 9  # at the outermost pixels of a bilinear reduction, as above
        assert (levels > 1).mean() < 0.01


@pytest.mark.parametrize("shape", [(10, 40), (40, 10)])
def test_what_is_at_the_ends_is_seen_unless_the_centre_is_cut_out(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[:2, :2] = image[-2:, -2:] = 255
    assert not resized(image, 20, "bilinear").any()
    assert resized(image, 20, "bilinear", "squeeze")[[0, -1], [0, -1]].all()
    padded = resized(image, 20, "bilinear", "pad")
    bars = padded if shape[0] < shape[1] else padded.transpose(1, 0, 2)
    assert (bars[:7] == BAR).all()
    assert (bars[-8:] == BAR).all()
    assert bars[7, 0].all()
    assert bars[-9, -1].all()


@pytest.mark.parametrize("fit", ["squeeze", "pad"])
@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (1, 1)])
def test_extreme_shapes_are_fitted(shape: tuple[int, int], fit: Fit) -> None:
    found = resized(np.full((*shape, 3), 200, np.uint8), 16, "bicubic", fit)
    assert found.shape == (16, 16, 3)
    assert (found[8, 8] == 200).all() or (found[7, 7] == 200).all()


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (1, 1)])
def test_extreme_shapes_give_the_centre(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[(shape[0] - 1) // 2, (shape[1] - 1) // 2] = (10, 20, 30)
    assert (resized(image, 16, "bicubic") == (10, 20, 30)).all()


@pytest.mark.parametrize("fit", ["crop", "squeeze", "pad"])
def test_several_images_of_one_size_are_resized_at_once(fit: Fit) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    session = runtime.session(pieces.to_bytes(resize_graph(12, "bilinear", fit, BAR)))
    together = session.run(None, {"image": images})[0]
    assert np.array_equal(together, np.stack([resized(image, 12, "bilinear", fit) for image in images]))


def test_the_graph_of_the_centre_square_keeps_its_bytes() -> None:
    """Rows of pixels are known by these bytes: where they change, every project computes all its images again."""
    digests = {
        name: hashlib.sha256(pieces.to_bytes(resize_graph(256, name))).hexdigest()[:16]
        for name in ("bilinear", "bicubic")
    }
    assert digests == {"bilinear": "1b74ae31bedb2635", "bicubic": "c5873fa6dab3f805"}


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
