"""Every engine on real backbones, held to onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import zipfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart import params_file
from headstart.backbones import networks
from headstart.backbones.export import photographs
from headstart.backbones.graph import from_pixels
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sha256_of, write_json
from headstart.embedding import engines
from headstart.layout import Layout
from headstart.onnx import runtime
from tasks import backbone as stage
from tests.support.backbones import settings
from tests.support.images import ROOT

BACKBONES = ["tf_efficientnet_lite0", pytest.param("resnet50", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = Layout(tmp_path_factory.mktemp("backbone"))
    weights = "bundled" if request.param == "tf_efficientnet_lite0" else "random"
    values = params_file.load(ROOT / "params.yaml")
    stage.run(values.model_copy(update={"backbone": settings(name=request.param, weights=weights)}), layout)
    return layout.backbone


@pytest.fixture(scope="module")
def pixels(backbone: Path) -> np.ndarray:
    """Photographs, uint8 [4, 256, 256, 3]."""
    resizer = runtime.session(backbone / "resize.onnx")
    return np.concatenate([resizer.run(None, {"image": image[None]})[0] for image in photographs()])


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
    module = from_pixels(*networks.rebuilt(backbone))
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


class Bomb:
    """Unpickled, it leaves a file behind: what code from elsewhere could do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def bombs(marker: Path) -> dict[str, bytes]:
    """Return files that run code where somebody unpickles them: pickle's, torch.save's and torch.export.save's."""
    saved, exported, armed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(Bomb(marker), saved)
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),)), exported)
    with zipfile.ZipFile(exported) as before, zipfile.ZipFile(armed, "w", zipfile.ZIP_STORED) as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith("model_weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            after.writestr(name, saved.getvalue() if name.endswith("weights/weight_0") else content)
    return {"pickle": pickle.dumps(Bomb(marker)), "torch.save": saved.getvalue(), "export.save": armed.getvalue()}


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "export.save"])
@pytest.mark.parametrize("name", ["backbone.json", "backbone.onnx", "backbone.pt2", "backbone.safetensors"])
def test_nothing_that_a_remote_can_hold_runs_code(backbone: Path, tmp_path: Path, name: str, kind: str) -> None:
    folder, marker = tmp_path / "backbone", tmp_path / "ran"
    shutil.copytree(backbone, folder)
    (folder / name).write_bytes(bombs(marker)[kind])
    if name == "backbone.safetensors":  # whoever can replace it can replace its digest
        facts = json.loads((folder / "backbone.json").read_text())
        write_json(folder / "backbone.json", {**facts, "backbone_safetensors_sha256": sha256_of(folder / name)})
    torch_engine = engines.kind("torch")
    if name in ("backbone.onnx", "backbone.pt2"):  # the engine has no use for them
        engines.opened(torch_engine, folder)
    else:
        with pytest.raises(CheckError, match="Run `dvc repro --force backbone`"):
            engines.opened(torch_engine, folder)
    assert not marker.exists()


def test_the_bombs_would_go_off(tmp_path: Path) -> None:
    for kind, load in {
        "pickle": pickle.load,
        "torch.save": partial(torch.load, weights_only=False),
        "export.save": torch.export.load,
    }.items():
        marker = tmp_path / kind
        with contextlib.suppress(Exception):
            load(io.BytesIO(bombs(marker)[kind]))
        assert marker.exists(), kind


def test_tensors_that_are_not_those_of_the_record_are_refused(backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(backbone, folder)
    path = folder / "backbone.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckError, match=r"backbone\.safetensors has SHA-256 .* The file that backbone wrote"):
        engines.opened(engines.kind("torch"), folder)
