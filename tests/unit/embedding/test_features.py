from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart import params_file
from headstart.base.errors import CheckError
from headstart.base.files import sha256_of
from headstart.embedding import engines
from headstart.embedding.compute import Embedding
from headstart.embedding.pixels import Resizing, contract
from headstart.embedding.views import Views
from headstart.images import decoding
from headstart.layout import Layout
from headstart.store.shards import Contract
from tasks import backbone as stage
from tests.support.backbones import settings as backbone_settings
from tests.support.images import ROOT, photograph


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage writes of a small network: pixels uint8 [N, 20, 20, 3] -> features [N, 440]."""
    layout = Layout(tmp_path_factory.mktemp("backbone"))
    small = backbone_settings(name="test_efficientnet", weights="random", input_px=16, crop_fraction=0.8)
    stage.run(params_file.load(ROOT / "params.yaml").model_copy(update={"backbone": small}), layout)
    return layout.backbone


IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(40)]
IMAGES = dict.fromkeys(IDS, "")


def pixels(wanted: Mapping[str, str]) -> np.ndarray:
    return np.stack(
        [np.random.default_rng(int(each[:8], 16)).integers(0, 256, (20, 20, 3), np.uint8) for each in wanted]
    )


def embedding(backbone: Path, engine: str = "onnxruntime", **changes: object) -> Embedding:
    options: dict[str, object] = {"batch_size": 8, "pixels": pixels, "dtype": "float32", "views": None, **changes}
    digest = sha256_of(backbone / "backbone.onnx")
    return Embedding(backbone, digest, engines.kind(engine), **options)  # type: ignore[arg-type]


def compute(made_by: Embedding, wanted: Mapping[str, str] = IMAGES) -> np.ndarray:
    advanced: list[int] = []
    features = made_by(wanted, advanced.append)
    assert sum(advanced) == len(wanted)
    return features


@pytest.mark.parametrize("views", [None, Views(3, 0, 16, "bilinear")])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
@settings(max_examples=10)
@given(order=st.permutations(IDS), cuts=st.sets(st.integers(1, 39)))
def test_features_do_not_depend_on_order_or_on_the_images_beside(
    backbone: Path, engine: str, views: Views | None, order: list[str], cuts: set[int]
) -> None:
    made_by = embedding(backbone, engine, views=views)
    expected = dict(zip(IDS, compute(made_by), strict=True))
    for start, end in pairwise([0, *sorted(cuts), 40]):
        group = order[start:end]
        for image_id, features in zip(group, compute(made_by, dict.fromkeys(group, "")), strict=True):
            assert features.tobytes() == expected[image_id].tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_row_is_its_views(backbone: Path, dtype: str) -> None:
    three = dict.fromkeys(IDS[:3], "")
    plain = compute(embedding(backbone, dtype=dtype), three)
    assert plain.shape == (3, 1, 440)
    assert plain.dtype == dtype
    assert compute(embedding(backbone, views=Views(20, 0, 16, "bicubic")), three).shape == (3, 20, 440)
    wide = compute(embedding(backbone), three)
    assert np.abs(plain - wide).max() <= np.abs(wide).max() * np.finfo(dtype).eps


def test_whatever_changes_the_values_changes_the_fingerprint(backbone: Path, tmp_path: Path) -> None:
    of_pixels = Contract("a", (20, 20, 3), "uint8")
    other_backbone = Embedding(tmp_path, "0" * 64, engines.kind("onnxruntime"), 8, pixels, "float32", None)
    contracts = [
        embedding(backbone).contract(of_pixels, 440),
        embedding(backbone).contract(Contract("b", (20, 20, 3), "uint8"), 440),
        embedding(backbone, "torch").contract(of_pixels, 440),
        embedding(backbone, "openvino").contract(of_pixels, 440),
        embedding(backbone, batch_size=16).contract(of_pixels, 440),
        embedding(backbone, views=Views(3, 0, 16, "bilinear")).contract(of_pixels, 440),
        embedding(backbone, views=Views(3, 1, 16, "bilinear")).contract(of_pixels, 440),
        embedding(backbone, views=Views(3, 0, 16, "bicubic")).contract(of_pixels, 440),
        other_backbone.contract(of_pixels, 440),
    ]
    assert len({contract.fingerprint for contract in contracts}) == len(contracts)
    assert embedding(backbone).contract(of_pixels, 440) == contracts[0]
    assert embedding(backbone, dtype="float16").contract(of_pixels, 440) != contracts[0]


def test_stores_of_earlier_versions_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a row is kept under, spelled out: where it changes, every user computes every row again."""
    monkeypatch.setattr(decoding, "decoder", lambda bits: "decoder")
    resizing = Resizing(b"graph", 256, Path())
    of_pixels = fingerprint_of({"decoder": "decoder", "resize": b"graph".hex()})
    assert contract(resizing) == Contract(of_pixels, (256, 256, 3), "uint8")
    kind = engines.Kind("onnxruntime", "onnxruntime 1.0", "float32", "cpu", 4, 2)
    row = {"backbone": "ab", "batch_size": "4", "engine": "onnxruntime 1.0 float32 cpu", "pixels": of_pixels}
    plain = Embedding(Path(), "ab", kind, 4, pixels, "float32", None)
    assert plain.contract(contract(resizing), 256).fingerprint == fingerprint_of({**row, "views": "plain"})


def fingerprint_of(ingredients: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def test_a_worker_with_another_engine_or_backbone_refuses(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = engines.Kind("onnxruntime", "onnxruntime 0.0", "float32", "cpu", 16, 2)
    with pytest.raises(CheckError, match=r"a worker of the cluster runs onnxruntime .* where onnxruntime 0\.0 float32"):
        compute(Embedding(backbone, sha256_of(backbone / "backbone.onnx"), other, 8, pixels, "float32", None))
    with pytest.raises(CheckError, match=r"backbone\.onnx has SHA-256 .*The file that backbone wrote"):
        compute(Embedding(backbone, "0" * 64, engines.kind("onnxruntime"), 8, pixels, "float32", None))


# Views

PICTURE = photograph(3, 40, 40)


def test_views_never_change_and_differ_by_image_seed_and_number() -> None:
    views = Views(4, 0, 32, "bilinear")
    made = views.of(PICTURE, IDS[0])
    assert made.shape == (4, 40, 40, 3)
    assert made.tobytes() == views.of(PICTURE, IDS[0]).tobytes()
    box, is_mirrored = views._draw(40, f"0:0:{IDS[0]}")
    assert np.round(box, 3).tolist() == [7.915, 6.65, 34.061, 34.105]  # features are kept under the version of the draw
    assert is_mirrored is False
    others = [*made, *Views(4, 1, 32, "bilinear").of(PICTURE, IDS[0]), *views.of(PICTURE, IDS[1])]
    assert len({view.tobytes() for view in others}) == 12
    assert Views(6, 0, 32, "bilinear").of(PICTURE, IDS[0])[:4].tobytes() == made.tobytes()


def test_a_view_is_a_crop_of_the_image_where_the_backbone_looks() -> None:
    views = Views(50, 0, 32, "bilinear")
    made = views.of(PICTURE, IDS[0])
    start = (40 - 32) // 2
    outside = made.copy()
    outside[:, start : start + 32, start : start + 32] = 0
    assert not outside.any()
    mirrored = 0
    for number, view in enumerate(made):
        (left, top, right, bottom), is_mirrored = views._draw(40, f"0:{number}:{IDS[0]}")
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 40
        assert 0.249 < (right - left) * (bottom - top) / 1600 <= 1
        assert 0.74 < (right - left) / (bottom - top) < 1.34
        mirrored += is_mirrored
        crop = Image.fromarray(PICTURE).resize((32, 32), Image.Resampling.BILINEAR, (left, top, right, bottom))
        inner = view[start : start + 32, start : start + 32]
        assert np.array_equal(inner[:, ::-1] if is_mirrored else inner, np.asarray(crop))
    assert 15 < mirrored < 35
