from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from torchvision import models

from headstart import params_file
from headstart.backbones import bundled, export, networks
from headstart.backbones.export import photographs
from headstart.backbones.graph import from_pixels
from headstart.backbones.levels import Level
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sha256_of
from headstart.base.licences import Licence
from headstart.layout import Layout
from headstart.onnx import pieces, runtime
from headstart.onnx.backbone_folder import LAST
from tasks import backbone as stage
from tests.support.backbones import settings
from tests.support.images import ROOT
from tests.support.server import Server

FILES = ["backbone.json", "backbone.onnx", "backbone.safetensors", "resize.onnx"]


NO_LICENCE = Licence("none", "the weights are random")
ONLY_LAST = (Level(LAST, 2, "none"),)


def run(layout: Layout, **changes: object) -> dict[str, Any]:
    values = params_file.load(ROOT / "params.yaml").model_copy(
        update={"backbone": settings(**{"weights": "random", **changes})}
    )
    stage.run(values, replace(layout, keeps_backbones=False))
    facts: dict[str, Any] = json.loads((layout.backbone / "backbone.json").read_text())
    return facts


def features_of(layout: Layout, images: np.ndarray) -> np.ndarray:
    """Return what the two graphs on disk make of uint8 [N, H, W, 3]."""
    resize, cut = (runtime.session(layout.backbone / f"{piece}.onnx") for piece in ("resize", "backbone"))
    found: np.ndarray = cut.run(None, {"pixels": resize.run(None, {"image": images})[0]})[0]
    return found


def rebuilt_features(layout: Layout, images: np.ndarray) -> np.ndarray:
    """Return what the network that is rebuilt from its name and its tensors makes of them."""
    resize = runtime.session(layout.backbone / "resize.onnx")
    pixels = torch.from_numpy(resize.run(None, {"image": images})[0])
    with torch.inference_mode():
        return np.asarray(from_pixels(*networks.rebuilt(layout.backbone))(pixels))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("finished"))
    run(layout, name="test_resnet")
    return layout


def test_backbone_json_names_everything(finished: Layout) -> None:
    folder = finished.backbone
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert json.loads((folder / "backbone.json").read_text()) == {
        "name": "timm/test_resnet",
        "weights": "random",
        "weights_sha256": networks.load(settings(name="test_resnet", weights="random"), folder, print).weights_sha256,
        "licence": "none",
        "licence_source": "the weights are random",
        "n_features": 368,
        "levels": [
            {"name": "layer1.0", "start": 0, "width": 32, "pooling": "map"},
            {"name": "layer2.0", "start": 32, "width": 48, "pooling": "map"},
            {"name": "layer3.0", "start": 80, "width": 192, "pooling": "map"},
            {"name": "last", "start": 272, "width": 96, "pooling": "none"},
        ],
        "preprocessing": {
            "resize_px": 168,
            "input_px": 160,
            "crop_fraction": 0.95,
            "interpolation": "bilinear",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "fit": "crop",
        },
        "source": None,
        "hub": None,
        "resize_onnx_sha256": sha256_of(folder / "resize.onnx"),
        "backbone_onnx_sha256": sha256_of(folder / "backbone.onnx"),
        "backbone_safetensors_sha256": sha256_of(folder / "backbone.safetensors"),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "onnx")},
        "warnings": [],
    }


def test_the_same_parameters_give_the_same_bytes(finished: Layout, tmp_path: Path) -> None:
    run(Layout(tmp_path), name="test_resnet")
    for name in FILES:
        assert (Layout(tmp_path).backbone / name).read_bytes() == (finished.backbone / name).read_bytes()


def test_another_preprocessing_gives_other_features(finished: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    facts = run(layout, name="test_resnet", input_px=96, crop_fraction=0.5, mean=[0.2, 0.3, 0.4])
    assert facts["preprocessing"]["resize_px"] == 192
    assert facts["n_features"] == 368
    images = photographs()[0][None]
    assert runtime.difference(features_of(layout, images), features_of(finished, images)).relative > 0.1


@pytest.mark.slow
def test_a_network_of_another_input_size_is_rebuilt_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    run(layout, name="vit_tiny_patch16_224", input_px=96)  # its position embeddings have another shape
    images = photographs()[0][None]
    assert runtime.difference(rebuilt_features(layout, images), features_of(layout, images)).relative < 1e-3


def as_it_was(folder: Path, attempt: Callable[[], object]) -> str:
    """Return why `attempt` was refused, having left an earlier artefact in `folder` as it was."""
    folder.mkdir(parents=True)
    (folder / "backbone.json").write_text("earlier")
    with pytest.raises((CheckError, ParamError)) as error:
        attempt()
    assert [path.read_text() for path in folder.iterdir()] == ["earlier"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return str(error.value)


@pytest.mark.parametrize(
    ("spoilt", "said"), [(lambda found: found + found.std(), "by 1.0e+00"), (lambda found: found * np.nan, "by nan")]
)
def test_a_graph_that_differs_from_pytorch_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    honest = export.reference_features

    def reference(*given: Any) -> np.ndarray:
        found = honest(*given)
        return spoilt(found - found.mean())

    monkeypatch.setattr(export, "reference_features", reference)
    layout = Layout(tmp_path)
    message = as_it_was(layout.backbone, lambda: run(layout, name="test_resnet"))
    assert message.startswith("onnxruntime's features of timm/test_resnet differ from PyTorch's by ")
    assert message.endswith(" of their size. At most 1e-03 was expected. Choose another backbone.name in params.yaml.")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("resnet18", "is unknown (torchvision does not say)"),
        ("convnextv2_atto.fcmae", "is CC-BY-NC-4.0 (timm says 'cc-by-nc-4.0')"),
    ],
)
def test_weights_that_may_not_ship_end_the_run_before_they_are_downloaded(
    name: str, licence: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    layout = Layout(tmp_path)
    message = as_it_was(layout.backbone, lambda: run(layout, name=name, weights="default"))
    assert message.startswith(f"the licence of the weights of '{name}' {licence}.")
    assert server.asked == []


def test_a_network_too_large_for_one_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MAX_BYTES", 40_000_000)
    layout = Layout(tmp_path)
    assert as_it_was(layout.backbone, lambda: run(layout, name="resnet18")) == (
        "backbone.name is 'torchvision/resnet18', whose weights take 45 MB. An ONNX file can hold 40 MB."
        " Choose a smaller backbone.name in params.yaml."
    )


def test_a_network_that_cannot_be_exported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsayable(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :2] if images.sum() > 0 else images.flatten(1)[:, 2:4]

    settings_of = bundled.TABLE["timm/tf_efficientnet_lite0"].preprocessing
    net = networks.Backbone("timm/net", Unsayable(), ONLY_LAST, settings_of, "random", "0" * 64, NO_LICENCE)
    monkeypatch.setattr(networks, "load", lambda *_: net)
    layout = Layout(tmp_path)
    message = as_it_was(layout.backbone, lambda: run(layout))
    assert message.startswith("backbone.name is 'timm/net', which torch.onnx cannot export (")
    assert message.endswith("). Choose another backbone.name in params.yaml.")
    assert "\n" not in message


# name, and the width of the features that users of the library know
FAMILIES = [
    ("torchvision/alexnet", 4096),
    ("torchvision/vgg11", 4096),
    ("torchvision/resnet18", 512),
    ("torchvision/inception_v3", 2048),
    ("torchvision/googlenet", 1024),
    ("torchvision/mobilenet_v2", 1280),
    ("torchvision/mobilenet_v3_small", 1024),
    ("torchvision/efficientnet_b0", 1280),
    ("torchvision/densenet121", 1024),
    ("torchvision/squeezenet1_1", 512),
    ("torchvision/shufflenet_v2_x0_5", 1024),
    ("torchvision/mnasnet0_5", 1280),
    ("torchvision/regnet_x_400mf", 400),
    ("torchvision/convnext_tiny", 768),
    ("torchvision/vit_b_32", 768),
    ("torchvision/swin_t", 768),
    ("torchvision/maxvit_t", 512),
    ("timm/resnet10t", 512),
    ("timm/vit_tiny_patch16_224", 192),
    ("timm/convnext_atto", 320),
    ("timm/tf_efficientnet_lite0", 1280),
    ("timm/mobilenetv4_conv_small", 1280),
    ("timm/levit_128s", 384),
    ("timm/swin_tiny_patch4_window7_224", 768),  # its maps are [B, H, W, D]
    ("timm/swinv2_cr_tiny_ns_224", 768),
]
QUICK = ("torchvision/squeezenet1_1", "torchvision/resnet18", "timm/resnet10t", "torchvision/mnasnet0_5")
EACH_FAMILY = pytest.mark.parametrize(
    ("name", "n_last"),
    [pytest.param(*each, marks=() if each[0] in QUICK else pytest.mark.slow, id=each[0]) for each in FAMILIES],
)


@EACH_FAMILY
def test_every_family_goes_through_the_stage(name: str, n_last: int, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    facts = run(layout, name=name)  # which holds onnxruntime to PyTorch itself
    assert (facts["name"], facts["levels"][-1]["width"]) == (name, n_last)
    assert len(facts["levels"]) > 1
    assert sum(level["width"] for level in facts["levels"]) == facts["n_features"]
    assert sorted(path.name for path in layout.backbone.iterdir()) == FILES
    portraits = [image[:320, :200] for image in photographs()[:2]]
    both = features_of(layout, np.stack(portraits))
    alone = [features_of(layout, image[None]) for image in portraits]
    assert both.shape == (2, facts["n_features"])
    assert [each.shape for each in alone] == [(1, facts["n_features"])] * 2
    assert runtime.difference(both, np.concatenate(alone)).relative < 1e-4
    assert runtime.difference(both[:1], both[1:]).relative > 1e-2  # they follow from the image
    assert runtime.difference(rebuilt_features(layout, np.stack(portraits)), both).relative < 1e-3
    pixels = runtime.session(layout.backbone / "resize.onnx").run(None, {"image": np.stack(portraits)})[0]
    graph, half = onnx.load(layout.backbone / "backbone.onnx"), len(facts["levels"]) // 2
    lower = pieces.to_bytes(pieces.narrowed(graph, range(half)))
    found = runtime.session(lower).run(None, {"pixels": pixels})[0]
    assert runtime.difference(found, both[:, : facts["levels"][half]["start"]]).relative < 1e-4
    assert len(lower) < (layout.backbone / "backbone.onnx").stat().st_size  # what only the upper levels need is gone


@EACH_FAMILY
def test_the_features_are_what_the_library_gives_to_its_classifier(name: str, n_last: int, tmp_path: Path) -> None:
    library, _, known_as = name.partition("/")
    torch.manual_seed(0)  # as `load` does
    if library == "timm":
        model = timm.create_model(known_as, pretrained=False).eval()
    else:
        model = models.get_model(known_as, weights=None).eval()
        if hasattr(model, "transform_input"):
            model.transform_input = True
    loaded = networks.load(settings(name=name, weights="random"), tmp_path, print)
    px = loaded.preprocessing.input_px
    images = torch.rand(2, 3, px, px, generator=torch.Generator().manual_seed(1))
    given: list[torch.Tensor] = []
    if library == "torchvision":
        last = [layer for layer in model.modules() if getattr(layer, "out_features", None) == 1000][-1:] or [
            layer for layer in model.modules() if getattr(layer, "out_channels", None) == 1000
        ]
        last[-1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.no_grad():
        if library == "timm":
            given.append(model.forward_head(model.forward_features(images), pre_logits=True))
        else:
            model(images)
        found = loaded.module(images)
    assert found.shape == (2, n_last)
    expected = given[-1].mean((2, 3)) if given[-1].ndim == 4 else given[-1]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_every_classification_family_of_torchvision_is_tried() -> None:
    def families(names: list[str]) -> set[str]:
        return {models.get_model_builder(name).__module__ for name in names}

    tried = [name.removeprefix("torchvision/") for name, _ in FAMILIES if name.startswith("torchvision/")]
    assert families(tried) == families(models.list_models(module=models))
