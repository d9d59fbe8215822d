"""Every engine on real backbones, held to onnxruntime."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart import engines, graphs, params
from headstart.errors import CheckError, ParamError
from headstart.layout import Layout
from tasks import backbone as stage
from tests.conftest import ROOT
from tests.unit.test_weights import settings

BACKBONES = ["tf_efficientnet_lite0", pytest.param("resnet50", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = Layout(tmp_path_factory.mktemp("backbone"))
    weights = "bundled" if request.param == "tf_efficientnet_lite0" else "random"
    values = params.load(ROOT / "params.yaml")
    stage.run(values.model_copy(update={"backbone": settings(name=request.param, weights=weights)}), layout)
    return layout.backbone


@pytest.fixture(scope="module")
def pixels(backbone: Path) -> np.ndarray:
    """Photographs, uint8 [4, 256, 256, 3]."""
    resizer = graphs.session(backbone / "resize.onnx")
    return np.concatenate([resizer.run(None, {"image": image[None]})[0] for image in stage.photographs()])


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_an_engine_gives_onnxruntimes_features(backbone: Path, pixels: np.ndarray, name: str) -> None:
    kind = engines.kind(name)
    engine = engines.opened(kind, backbone)
    apart = engines.check_parity(kind, engine, backbone, pixels)
    assert apart <= engines.TOLERANCES[kind.precision]
    features = engine(pixels)
    assert features.dtype == np.float32
    facts = json.loads((backbone / "backbone.json").read_text())
    assert features.shape == (4, facts["n_features"])


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_the_stated_tolerance(
    backbone: Path, pixels: np.ndarray, precision: torch.dtype
) -> None:
    """What a GPU does, emulated: autocast of the same program on the CPU."""
    module = torch.export.load(str(backbone / "backbone.pt2")).module()
    with torch.inference_mode(), torch.autocast("cpu", precision):
        features = module(torch.from_numpy(pixels)).float().numpy()
    reference = engines.opened(engines.kind("onnxruntime"), backbone)(pixels)
    tolerance = engines.TOLERANCES[str(precision).removeprefix("torch.")]
    assert tolerance / 100 < engines.distance(features, reference) <= tolerance


def test_an_engine_that_computes_something_else_is_refused(backbone: Path, pixels: np.ndarray) -> None:
    kind = engines.kind("torch")
    engine = engines.opened(kind, backbone)
    with pytest.raises(CheckError, match=r"torch .* float32 cpu's features differ from onnxruntime's by \d"):
        engines.check_parity(kind, lambda images: engine(images[::-1].copy()), backbone, pixels)


def test_auto_is_onnxruntime_without_a_gpu_and_torch_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_has_gpu_driver", lambda: False)
    assert engines.kind("auto").name == "onnxruntime"
    monkeypatch.setattr(engines, "_has_gpu_driver", lambda: True)
    monkeypatch.setattr(engines, "_cuda", lambda: True)
    assert str(engines.kind("auto")) == f"torch {version('torch')} float16 cuda"
    assert engines.kind("auto").batch_size == 256
    monkeypatch.setattr(engines, "_cuda", lambda: False)
    assert engines.kind("auto").name == "onnxruntime"


def test_an_engine_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(ParamError, match=r"embed\.engine is 'openvino', which is not installed\. Run `pip install"):
        engines.kind("openvino")
