"""The resize: Pillow's, in every runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from PIL import Image

from headstart.images.decoding import decode
from headstart.onnx import pieces, runtime
from headstart.onnx.backbone_folder import Fit
from headstart.onnx.resize import resize_graph

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BAR = 77  # the grey of bars
FITS = pytest.mark.parametrize("fit", ["crop", "squeeze", "pad"])
INTERPOLATIONS = pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])


def resized(image: np.ndarray, size_px: int, interpolation: str, fit: Fit = "crop") -> np.ndarray:
    session = runtime.session(pieces.to_bytes(resize_graph(size_px, interpolation, fit, BAR)))
    return session.run(None, {"image": image[None]})[0][0]


def pillows(image: np.ndarray, size_px: int, interpolation: str, fit: Fit = "crop") -> np.ndarray:
    """Return what Pillow makes of it. Each direction is asked for by itself, for their order depends on the version."""
    picture, (height, width) = Image.fromarray(image), image.shape[:2]
    inner = [size_px, size_px]
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    if fit == "pad":
        inner = [max(1, int(side * size_px / max(height, width) + 0.5)) for side in (width, height)]
    rows = picture.resize((inner[0], picture.height), PILLOW[interpolation])
    square = Image.new("RGB", (size_px, size_px), (BAR, BAR, BAR))
    square.paste(rows.resize(inner, PILLOW[interpolation]), tuple((size_px - side) // 2 for side in inner))
    return np.asarray(square)


def apart(image: np.ndarray, size_px: int, interpolation: str, fit: Fit) -> np.ndarray:
    """Return by how many levels each channel of each pixel differs from Pillow's, int [S, S, 3]."""
    found, expected = (each(image, size_px, interpolation, fit).astype(int) for each in (resized, pillows))
    return np.abs(found - expected)


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@FITS
@INTERPOLATIONS
@pytest.mark.parametrize("size_px", [64, 235, 256, 700])
def test_photographs_are_resized_as_pillow_does_up_and_down(
    hymenoptera: Path, interpolation: str, size_px: int, fit: Fit
) -> None:
    for path in sorted((hymenoptera / "train" / "bees").iterdir())[:4]:
        levels = apart(decode(path.read_bytes()).rgb, size_px, interpolation, fit)
        if interpolation == "bilinear":
            assert not levels.any()
        else:
            assert levels.max() <= 1
            assert (levels > 0).mean() < 0.0005


@FITS
@settings(max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 120), st.integers(0, 1000))
def test_noise_of_any_shape_is_resized_as_pillow_does(
    fit: Fit, height: int, width: int, size_px: int, seed: int
) -> None:
    image = noise(height, width, seed)
    assert not apart(image, size_px, "bilinear", fit).any()
    assert apart(image, size_px, "bicubic", fit).max() <= 2


@pytest.mark.parametrize("shape", [(3000, 2000), (4096, 64), (64, 4096)])
@FITS
def test_large_images_are_resized_as_pillow_does(shape: tuple[int, int], fit: Fit) -> None:
    image = noise(*shape, 0)
    assert not apart(image, 64, "bilinear", fit).any()
    assert apart(image, 64, "bicubic", fit).max() <= 1


@INTERPOLATIONS
@FITS
def test_the_same_values_come_from_other_implementations(
    hymenoptera: Path, tmp_path: Path, fit: Fit, interpolation: str
) -> None:
    """From onnx's own evaluator every byte; from OpenVINO, which divides by multiplying, a level here and there."""
    graph = resize_graph(224, interpolation, fit, BAR)
    (tmp_path / "resize.onnx").write_bytes(pieces.to_bytes(graph))
    float32 = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "resize.onnx", "CPU", float32)
    photograph = decode(next((hymenoptera / "train" / "ants").iterdir()).read_bytes()).rgb
    for image in (photograph, noise(37, 91, 1), noise(1, 1, 2), noise(8, 700, 3)):
        expected = resized(image, 224, interpolation, fit)
        assert np.array_equal(ReferenceEvaluator(graph).run(None, {"image": image[None]})[0][0], expected)
        levels = np.abs(compiled({"image": image[None]})[0][0].astype(int) - expected)
        if interpolation == "bilinear":
            assert not levels.any()
        else:
            assert levels.max() <= 1
            assert (levels > 0).mean() < 0.001


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
    assert digests == {"bilinear": "b24bf6cc0fdc1263", "bicubic": "9c29fde0c9b4a17c"}


@FITS
def test_every_operator_is_a_plain_one(fit: Fit) -> None:
    assert {node.op_type for node in resize_graph(235, "bicubic", fit, BAR).graph.node} <= pieces.PLAIN
