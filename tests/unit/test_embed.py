from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import graphs, store
from headstart.backbones import Preprocessing
from tasks import embed


@pytest.fixture(scope="module")
def backbone_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolutional network: pixels uint8 [N, 20, 20, 3] -> features [N, 24]."""
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 24, 3), torch.nn.Hardswish(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    module = torch.nn.Sequential(*layers).eval()
    settings_ = Preprocessing(16, 0.8, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    path = tmp_path_factory.mktemp("graph") / "backbone.onnx"
    path.write_bytes(graphs.to_bytes(graphs.backbone_graph(module, settings_)))
    return path


IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(40)]


def pixels(image_ids: Sequence[str]) -> np.ndarray:
    return np.stack(
        [np.random.default_rng(int(each[:8], 16)).integers(0, 256, (20, 20, 3), np.uint8) for each in image_ids]
    )


@settings(max_examples=25)
@given(order=st.permutations(IDS), cuts=st.sets(st.integers(1, 39)))
def test_features_do_not_depend_on_order_or_on_the_images_beside(
    backbone_onnx: Path, order: list[str], cuts: set[int]
) -> None:
    edges = [0, *sorted(cuts), 40]
    with embed.embedding(backbone_onnx, pixels, 8, lambda n: None) as compute:
        expected = dict(zip(IDS, compute(IDS), strict=True))
        for group in (order[start:end] for start, end in pairwise(edges)):
            for image_id, features in zip(group, compute(group), strict=True):
                assert features.tobytes() == expected[image_id].tobytes()


def test_a_row_is_one_view_of_float32(backbone_onnx: Path) -> None:
    with embed.embedding(backbone_onnx, pixels, 8, lambda n: None) as compute:
        features = compute(IDS[:3])
    assert features.shape == (3, 1, 24)
    assert features.dtype == np.float32


def test_whatever_changes_the_values_changes_the_fingerprint(backbone_onnx: Path, tmp_path: Path) -> None:
    of_pixels = store.Contract("a", (20, 20, 3), "uint8")
    before = embed.contract(backbone_onnx, of_pixels, 24, 8)
    assert embed.contract(backbone_onnx, of_pixels, 24, 8) == before
    other = tmp_path / "backbone.onnx"
    other.write_bytes(backbone_onnx.read_bytes() + b"\x00")
    assert embed.contract(other, of_pixels, 24, 8).fingerprint != before.fingerprint
    assert embed.contract(backbone_onnx, of_pixels, 24, 16).fingerprint != before.fingerprint
    other_pixels = store.Contract("b", (20, 20, 3), "uint8")
    assert embed.contract(backbone_onnx, other_pixels, 24, 8).fingerprint != before.fingerprint
