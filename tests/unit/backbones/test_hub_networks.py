"""Networks of timm and Transformers from a hub: the features of the model that was published, in ONNX and PyTorch."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import load, save

from headstart.backbones import hub_networks, networks
from headstart.backbones.groups import layer_groups
from headstart.backbones.levels import Level
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import ParamError
from tests.support.backbones import settings
from tests.support.hub import PROCESSOR, PX, SMALL, Hub, drawn, of_timm, of_transformers, vit

NAME = "hf-hub:mine/net"
SWIN = {"image_size": PX, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def loaded(folder: Path, **changes: object) -> networks.Backbone:
    return networks.load(settings(**{"name": NAME, "weights": "default", **changes}), folder, lambda line: None)


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(ParamError) as error:
        loaded(folder, **changes)
    return str(error.value)


def noise(px: int = PX) -> torch.Tensor:
    return torch.randn(2, 3, px, px, generator=torch.Generator().manual_seed(1))


# timm


def test_a_network_of_timm_gives_the_features_of_the_published_model(hub: Hub, tmp_path: Path) -> None:
    files, model = of_timm()
    repository = hub.publish("mine/net", files)
    found = loaded(tmp_path)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(noise(96)), pre_logits=True)
        assert torch.equal(found.module(noise(96)), expected)
    assert found.preprocessing == Preprocessing(96, 0.9, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert (found.name, found.licence.name) == (NAME, "Apache-2.0")
    assert found.weights == f"hf-hub: mine/net@{repository.names['main']}"
    assert found.classifier is None  # of 7 classes, not ImageNet's


@pytest.mark.parametrize("tag", ["a1_in1k", "mine"])
def test_only_imagenets_classes_are_asked_for_the_palace(hub: Hub, tmp_path: Path, tag: str) -> None:
    files, _ = of_timm(n_classes=1000, cfg={"tag": tag})
    hub.publish("mine/net", files)
    assert (loaded(tmp_path).classifier is not None) == (tag == "a1_in1k")


def test_timm_itself_loads_the_same_from_this_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, _ = of_timm("test_vit", model_args={"img_size": 96, "global_pool": "avg"}, cfg={"fixed_input_size": True})
    config = json.loads(files["config.json"])
    model = timm.create_model("test_vit", num_classes=7, **config["model_args"]).eval()
    hub.publish("mine/net", {**files, "model.safetensors": save(model.state_dict())})
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    theirs: Any = timm.create_model(NAME, pretrained=True, num_classes=0).eval()
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path).module(noise(96)), theirs(noise(96)))


def test_another_size_is_resampled_as_timm_does(hub: Hub, tmp_path: Path) -> None:
    files, model = of_timm("test_vit", cfg={"fixed_input_size": True, "input_size": [3, 160, 160]})
    hub.publish("mine/net", files)
    assert loaded(tmp_path, input_px=96).module(noise(96)).shape == (2, model.num_features)


def test_old_repositories_of_timm_have_it_all_at_the_top(hub: Hub, tmp_path: Path) -> None:
    files, _ = of_timm()
    config = json.loads(files["config.json"])
    flat = {"architecture": config["architecture"], **config["pretrained_cfg"]}
    hub.publish("mine/net", {**files, "config.json": json.dumps(flat).encode()})
    assert loaded(tmp_path).preprocessing.mean == (0.4, 0.5, 0.6)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg_overlay", "cache_dir"])
def test_a_configuration_cannot_have_other_files_read(hub: Hub, tmp_path: Path, argument: str) -> None:
    files, _ = of_timm(model_args={argument: "/etc/passwd"})
    hub.publish("mine/net", files)
    assert f"(ValueError: model_args has {argument})" in refusal(tmp_path)


def test_an_architecture_that_timm_does_not_know_is_told(hub: Hub, tmp_path: Path) -> None:
    files, _ = of_timm()
    config = json.loads(files["config.json"])
    hub.publish("mine/net", {**files, "config.json": json.dumps({**config, "architecture": "resnet1"}).encode()})
    assert "of the architecture 'resnet1', which the installed timm does not know. Did you mean 'resnet1" in refusal(
        tmp_path
    )


# Transformers


def test_a_vit_of_transformers_gives_what_its_classifier_reads(hub: Hub, tmp_path: Path) -> None:
    model = vit()
    hub.publish("mine/net", of_transformers(model, tmp_path / "saved"))
    found = loaded(tmp_path)
    with torch.no_grad():
        expected = model.vit(pixel_values=noise()).last_hidden_state[:, 0]
        assert torch.equal(found.module(noise()), expected)
    assert found.levels == (
        Level("network.vit.layers.0", 64, "class_and_tokens"),
        Level("network.vit.layers.1", 64, "class_and_tokens"),
        Level("network.vit.layers.2", 64, "class_and_tokens"),
        Level("last", 32, "none"),
    )
    assert found.preprocessing == Preprocessing(PX, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
    groups = [group.name for group in layer_groups(found.module)]
    assert groups == ["stem", "network.vit.layers.0", "network.vit.layers.1", "network.vit.layers.2"]


def last_of(kind: str) -> tuple[Any, Any, str]:
    """Return a model of a kind, what makes its features of its outputs, and what `takes` calls that."""
    config: Any
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic", num_labels=5
        )
        return transformers.ResNetForImageClassification(config), lambda m, x: m.resnet(x).pooler_output, "classifier"
    if kind == "swin":
        config = transformers.SwinConfig(**SWIN, num_labels=5)
        return transformers.SwinForImageClassification(config), lambda m, x: m.swin(x).pooler_output, "classifier"
    if kind == "dinov2":
        config = transformers.Dinov2Config(**{**SMALL, "mlp_ratio": 2, "image_size": 2 * PX})  # as published: larger
        return transformers.Dinov2Model(config), lambda m, x: m(x).pooler_output, "pooler"
    if kind == "distilled":
        config = transformers.DeiTConfig(**SMALL, num_labels=5)
        model = transformers.DeiTForImageClassificationWithTeacher(config)
        return model, lambda m, x: m.deit(x).last_hidden_state[:, 0], "class_token"
    if kind == "vit without pooler":
        config = transformers.ViTConfig(**SMALL)
        model = transformers.ViTModel(config, add_pooling_layer=False)
        return model, lambda m, x: m(x).last_hidden_state[:, 0], "class_token"
    if kind == "clip":
        text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = transformers.CLIPConfig(vision_config=SMALL, text_config={**text, "vocab_size": 99})
        return transformers.CLIPModel(config), lambda m, x: m.vision_model(x).pooler_output, "pooler"
    config = transformers.SiglipVisionConfig(**SMALL)
    return transformers.SiglipVisionModel(config), lambda m, x: m(x).pooler_output, "pooler"


@pytest.mark.parametrize("kind", ["resnet", "swin", "dinov2", "distilled", "vit without pooler", "clip", "siglip"])
def test_features_are_those_of_the_published_model(hub: Hub, tmp_path: Path, kind: str) -> None:
    model, features, takes = last_of(kind)
    drawn(model)
    hub.publish("mine/net", of_transformers(model, tmp_path / "saved"))
    found = loaded(tmp_path)
    with torch.no_grad():
        expected = features(model, noise()).flatten(1)
        assert torch.allclose(found.module(noise()), expected, atol=1e-6)
    assert found.hub is not None
    assert found.hub.takes == takes
    assert len(found.levels) > 2
    empty = hub_networks.empty(found.hub, PX).eval()
    empty.load_state_dict(found.module.state_dict())  # as `rebuilt` does
    with torch.no_grad():
        assert torch.allclose(empty(noise()), found.module(noise()), atol=1e-5)


def test_names_of_old_files_are_translated_as_the_library_does(hub: Hub, tmp_path: Path) -> None:
    model = vit()
    files = of_transformers(model, tmp_path / "saved")
    state = load(files["model.safetensors"])
    assert any(".layers." not in key and "attention" in key for key in state)  # the library itself saves old names
    hub.publish("mine/net", files)
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path).module(noise()), model.vit(noise()).last_hidden_state[:, 0])


def test_blue_comes_first_where_the_processor_says_so(hub: Hub, tmp_path: Path) -> None:
    model = vit()
    flipped = {**PROCESSOR, "do_flip_channel_order": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    hub.publish("mine/net", of_transformers(model, tmp_path / "saved", flipped))
    found = loaded(tmp_path)
    assert (found.preprocessing.mean, found.preprocessing.std) == ((0.3, 0.2, 0.1), (0.6, 0.5, 0.4))
    with torch.no_grad():
        expected = model.vit(noise().flip(1)).last_hidden_state[:, 0]
        assert torch.equal(found.module(noise()), expected)


def test_a_network_that_draws_lots_is_refused(hub: Hub, tmp_path: Path) -> None:
    model = drawn(transformers.ViTMAEModel(transformers.ViTMAEConfig(**SMALL)))
    hub.publish("mine/net", of_transformers(model, tmp_path / "saved"))
    assert "(ValueError: features that are drawn anew each time)" in refusal(tmp_path)


def test_what_old_files_leave_out_is_the_default_of_their_processor(hub: Hub, tmp_path: Path) -> None:
    old = {"feature_extractor_type": "ViTFeatureExtractor", "size": PX, "image_mean": [0.1] * 3, "do_normalize": True}
    hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved", old))
    assert loaded(tmp_path).preprocessing == Preprocessing(PX, 1.0, "bilinear", (0.1,) * 3, (0.5,) * 3)


def test_weights_in_half_precision_run_in_full(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", of_transformers(vit().half(), tmp_path / "saved"))
    assert loaded(tmp_path).module(noise()).dtype == torch.float32


def test_weights_that_are_missing_or_too_many_are_told_by_name(hub: Hub, tmp_path: Path) -> None:
    files = of_transformers(vit(), tmp_path / "saved")
    state = load(files["model.safetensors"])
    state["extra.weight"] = torch.ones(3)
    state["vit.layernorm.weight"] = torch.ones(8)
    del state["vit.layernorm.bias"]
    hub.publish("mine/net", {**files, "model.safetensors": save(state)})
    said = refusal(tmp_path)
    assert "the weights do not fit 'hf-hub:mine/net': 3 of " in said
    assert "(vit.layernorm.bias is missing, vit.layernorm.weight is [8], not [32], extra.weight is none of its" in said


def test_a_size_that_the_network_cannot_take_is_told(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved"))
    said = refusal(tmp_path, input_px=64)
    assert "which does not work at 64 pixels with these weights (ValueError: Input image size (64*64)" in said
    assert "Set backbone.input_px to null, for their own" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"auto_map": {"AutoModel": "code.Net"}}, "whose repository brings its own Python code. Such code is never"),
        ({"quantization_config": {"bits": 4}}, "whose weights are quantised. Weights in floating point were expected"),
        ({"model_type": "newest"}, "of the kind 'newest', which the installed transformers does not know. A newer"),
        ({"model_type": "bert"}, "of the kind 'bert', which takes no images alone. A vision model was expected"),
        ({"model_type": None}, "whose config.json is neither timm's nor Transformers' (it has architectures, att"),
    ],
)
def test_what_is_no_vision_network_is_told(hub: Hub, tmp_path: Path, change: dict[str, object], expected: str) -> None:
    files = of_transformers(vit(), tmp_path / "saved")
    config = {**json.loads(files["config.json"]), **change}
    hub.publish("mine/net", {**files, "config.json": json.dumps(config).encode()})
    assert expected in refusal(tmp_path)


def test_kernels_that_a_configuration_names_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    files = of_transformers(vit(), tmp_path / "saved")
    config = json.loads(files["config.json"]) | {
        "attn_implementation": "someone/kernel",
        "_attn_implementation": "someone/kernel",
        "use_kernels": True,
    }
    hub.publish("mine/net", {**files, "config.json": json.dumps(config).encode()})
    assert loaded(tmp_path).n_features > 0
    assert not any("kernel" in asked for asked in hub.asked)


def test_without_the_library_the_message_says_which_extra_to_install(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved"))
    honest = builtins.__import__

    def missing(name: str, *given: Any, **named: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return honest(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert refusal(tmp_path) == (
        "backbone.name is a network of Transformers, and the package transformers is not installed. Install the extra:"
        " `make setup EXTRAS=transformers`, or `pip install 'headstart[transformers]'`."
    )
    assert not any("model.safetensors" in asked for asked in hub.asked)


def test_a_preparation_that_nobody_states_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", of_transformers(vit(), tmp_path / "saved", {}))
    said = refusal(tmp_path)
    assert said.startswith("backbone.crop_fraction and backbone.interpolation and backbone.mean and backbone.std are")
    given = {"crop_fraction": 0.9, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
    assert loaded(tmp_path, **given).preprocessing.resize_px == round(PX / 0.9)


def test_bundled_weights_there_are_none_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    hub.publish("mine/net", of_timm()[0])
    assert "backbone.name is 'hf-hub:mine/net', which has no bundled weights." in refusal(tmp_path, weights="bundled")


def test_a_name_with_an_owner_may_be_meant_for_the_hub(tmp_path: Path) -> None:
    assert "On the Hugging Face hub it would be hf-hub:google/vit-base-patch16-224. Set backbone.name" in refusal(
        tmp_path, name="google/vit-base-patch16-224"
    )
