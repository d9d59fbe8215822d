"""A model of torchvision or timm without its classifier, and its tensors put where they belong.

Both libraries and torch are imported inside functions, because that takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headstart.backbones.preprocessing import Preprocessing
from headstart.backbones.weights import Published
from headstart.base.errors import ParamError, count_and_name
from headstart.onnx.backbone_folder import HubFeatures, HubRecord

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

_IMAGENET_CLASSES = 1000
_NOT_ARGUMENTS = {  # of a model, but of timm.create_model, which would read other files
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "scriptable",
    "exportable",
    "no_jit",
}
# Names in files that torchvision publishes -> names in its models today, as its own loaders translate them.
_OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)


class End(NamedTuple):
    """The classifier that a network had."""

    path: str  # of its tensors in the whole model
    module: Any


class Built(NamedTuple):
    """A model without its classifier."""

    module: torch.nn.Module
    state: State | None  # what is left to be filled in
    known: set[str]  # all names of tensors of the whole model
    end: End
    takes: HubFeatures = "classifier"  # what its features are


class Source(NamedTuple):
    """A network that can be built, and its weights."""

    name: str  # canonical
    published: Published
    own: Preprocessing
    path: Path | None  # the verified file of weights; None: random ones
    build: Callable[[State | None, int], Built]  # of the tensors in it and the side of the images
    hub: HubRecord | None = None


def from_timm(
    name: str,
    input_px: int | None,
    state: State | None,
    weights: str,
    is_in_order: bool = False,
    cfg: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Built:
    """Return a model of timm.

    `cfg` and `arguments` are what a repository says of its model in place of timm's own registry.
    """
    import timm
    from timm.models import PretrainedCfg

    own: Any = PretrainedCfg(**cfg) if cfg else timm.get_pretrained_cfg(name)
    given = dict(arguments or {})
    if input_px and own.fixed_input_size:
        given["img_size"] = input_px
    if given.keys() & _NOT_ARGUMENTS:
        raise ValueError(f"model_args has {count_and_name(sorted(given.keys() & _NOT_ARGUMENTS))}")
    if cfg:
        given["pretrained_cfg"] = own
    if weights == "default":  # timm renames what it publishes, and resamples position embeddings
        module: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **given)
        state = None
    else:
        module = timm.create_model(name, pretrained=False, **given)
    if state and is_in_order:  # the same tensors in the same order, under other names
        state = dict(zip(module.state_dict(), state.values(), strict=True))
    known = set(module.state_dict())
    end = End(str(own.classifier), module.get_classifier())
    module.reset_classifier(0)
    return Built(module, state, known, end)


def preprocessing_of_timm(cfg: Mapping[str, Any], name: str, report: Callable[[str], None]) -> Preprocessing:
    """Return what a pretrained_cfg of timm says; ParamError unless it takes squares of three channels."""
    from timm.data.config import resolve_data_config

    own = resolve_data_config(pretrained_cfg=dict(cfg))  # type: ignore[no-untyped-call]
    channels, height_px, width_px = own["input_size"]
    if channels != 3 or height_px != width_px:
        raise ParamError(
            f"backbone.name is '{name}', which takes {channels} x {height_px} x {width_px}."
            " A square input of 3 channels was expected. Set backbone.name in params.yaml."
        )
    if own["crop_mode"] != "center":
        report(f"{name} was trained with crop mode '{own['crop_mode']}'; centre cropping is used")
    return Preprocessing(height_px, own["crop_pct"], own["interpolation"], tuple(own["mean"]), tuple(own["std"]))


def from_torchvision(name: str, px: int, state: State | None) -> Built:
    """Return a model of torchvision, without auxiliary heads either, `state` under the names that it has today."""
    import torch
    from torch import nn
    from torchvision import models

    sized: dict[str, dict[str, Any]] = {"vit": {"image_size": px}, "maxvit": {"input_size": (px, px)}}
    model: Any = models.get_model(name, weights=None, **sized.get(name.partition("_")[0], {}))
    known = set(model.state_dict())
    if hasattr(model, "transform_input"):  # GoogLeNet, Inception: their weights want 0.5 for mean and std
        model.transform_input = True
    for auxiliary in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
            model.aux_logits = False
    executed: list[tuple[str, int]] = []
    hooks = []
    for path, layer in model.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            hooks.append(layer.register_forward_hook(lambda *_, seen=(path, width): executed.append(seen)))
    with torch.no_grad():
        n_classes = model.eval()(noise(1, px)).shape[-1]
    for hook in hooks:
        hook.remove()
    path = [path for path, width in executed if width == n_classes][-1]
    end = End(path, model.get_submodule(path))
    model.set_submodule(path, nn.Identity())
    for old, new in _OLD_NAMES:
        state = {old.sub(new, key): value for key, value in state.items()} if state else None
    return Built(model, state, known, end)


def classifier_of(end: End, state: State | None) -> torch.nn.Linear | None:
    """Return the classifier with its weights, if it is one matrix product to ImageNet's 1000 classes.

    `state`: what the network was filled from; None where the library has filled the whole model itself.
    """
    from torch import nn

    if not isinstance(end.module, nn.Linear) or end.module.out_features != _IMAGENET_CLASSES:
        return None
    if state:
        own = {name: state.get(f"{end.path}.{name}") for name in end.module.state_dict()}
        if any(value is None or value.shape != end.module.state_dict()[name].shape for name, value in own.items()):
            return None
        end.module.load_state_dict(own)
    return end.module.requires_grad_(False)


def fill(module: torch.nn.Module, state: State, known: set[str], name: str, source: str) -> None:
    """Copy `state` into `module`; ParamError if a tensor is missing, has another shape, or is none of the model's.

    The tensors of the classifier, `known` but not in `module`, may be there, may be missing and may have any shape.
    """
    needed = module.state_dict()  # carries the versions that some layers ask for
    offenders = []
    for key, tensor in needed.items():
        if key not in state:
            if not key.endswith("num_batches_tracked"):
                offenders.append(f"{key} is missing")
        elif state[key].shape != tensor.shape:
            offenders.append(f"{key} is {list(state[key].shape)}, not {list(tensor.shape)}")
    # Without a dimension are counters, which files of all ages have more or fewer of.
    offenders += [f"{key} is none of its tensors" for key in state if key not in known and state[key].ndim]
    if offenders:
        raise ParamError(
            f"the weights ({source}) do not fit '{name}': {len(offenders)} of {len(needed)} tensors differ"
            f" ({count_and_name(offenders)}). Weights of the same model were expected."
            " Set backbone.name or backbone.weights in params.yaml."
        )
    needed.update((key, state[key]) for key in needed.keys() & state.keys())
    module.load_state_dict(needed)


def noise(n_images: int, input_px: int) -> torch.Tensor:
    """Return drawn images, float [N, 3, I, I], the same every time."""
    import torch

    return torch.randn(n_images, 3, input_px, input_px, generator=torch.Generator().manual_seed(0))
