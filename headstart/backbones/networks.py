"""A name and its weights -> a frozen feature extractor, its preprocessing and where its weights came from.

The one place that knows torchvision and timm. They and torch are imported inside functions, because that takes seconds.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import bundled, hub_networks, modules, weights
from headstart.backbones.groups import Group, layer_groups
from headstart.backbones.hub_errors import HUB, is_on_hub
from headstart.backbones.levels import Level, extractor, levels_of
from headstart.backbones.modules import Built, Source
from headstart.backbones.preprocessing import Preprocessing
from headstart.backbones.weights import Published
from headstart.base import files, licences
from headstart.base.errors import CheckError, HeadstartError, ParamError, count_and_name, did_you_mean
from headstart.base.licences import Licence
from headstart.onnx import backbone_folder
from headstart.onnx.backbone_folder import HubRecord

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]
    Report = Callable[[str], None]
    Judge = Callable[[Licence], None]


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier, in eval mode and frozen."""

    name: str  # canonical: 'torchvision/resnet18', 'timm/tf_efficientnet_lite0'
    module: torch.nn.Module  # float [B, 3, input_px, input_px] -> its last features, float [B, last]
    levels: tuple[Level, ...]  # the one nearest to the input first, `last` at the end
    preprocessing: Preprocessing
    weights: str
    weights_sha256: str  # of the file; of the state dict's bytes in the order of their names for random weights
    licence: Licence
    classifier: torch.nn.Linear | None = None  # last features -> ImageNet's 1000 classes, where the weights have it
    hub: HubRecord | None = None  # where it comes from the Hugging Face hub

    @property
    def n_features(self) -> int:
        """D, of all levels."""
        return sum(level.width for level in self.levels)

    def extractor(self) -> torch.nn.Module:
        """Return a module that gives all levels side by side: float [B, 3, input_px, input_px] -> float [B, D]."""
        return extractor(self.module, self.levels)


def known_names() -> list[str]:
    """Return every canonical name: 'torchvision/resnet18', ..., 'timm/resnet18', 'timm/resnet18.a1_in1k', ..."""
    with _quiet():
        import timm
        from torchvision import models

        in_timm = dict.fromkeys([*timm.list_models(), *timm.list_models(pretrained=True)])  # the latter carry a tag
        return [f"torchvision/{name}" for name in models.list_models(module=models)] + [f"timm/{n}" for n in in_timm]


def load(
    params: parameters.Backbone, weights_folder: Path, report: Report, judge: Judge = lambda licence: None
) -> Backbone:
    """Build the backbone that `params` names, with verified weights; downloads go to `weights_folder`, once.

    `report` receives lines for the user; `judge` may raise to refuse the licence of the weights. ParamError for a
    mistake in params.yaml, in a file or in the network. The global random state stays as it was.
    """
    if params.is_onnx:
        raise ParamError(
            "backbone.name is 'onnx'. Such a graph can be run but not trained: it has no layers that PyTorch knows. A"
            " network of torchvision or timm was expected. Set backbone.name in params.yaml."
        )
    with _quiet():
        import torch

        source = (hub_networks.source if is_on_hub(params.name) else _of_library)(params, weights_folder, report, judge)
        preprocessing = _preprocessing(params, source.own)
        state = weights.read(source.path) if source.path else None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            try:
                built = source.build(state, preprocessing.input_px)
                if built.state:
                    modules.fill(built.module, built.state, built.known, params.name, source.published.weights)
                pretrained = params.weights in ("bundled", "default")
                classifier = modules.classifier_of(built.end, built.state) if pretrained else None
                levels = _levels(built.module.eval().requires_grad_(False), preprocessing.input_px)
            except HeadstartError:
                raise
            except Exception as error:
                said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                or_else = "Set backbone.input_px to null, for their own, or choose" if params.input_px else "Choose"
                raise ParamError(
                    f"backbone.name is '{params.name}', which does not work at {preprocessing.input_px} pixels with"
                    f" these weights ({said}). {or_else} another backbone.name in params.yaml."
                ) from error
    return Backbone(
        source.name,
        built.module,
        levels,
        preprocessing,
        source.published.weights,
        files.sha256_of(source.path) if source.path else _digest(built.module),
        source.published.licence,
        classifier,
        source.hub and source.hub.model_copy(update={"takes": built.takes}),
    )


def _of_library(params: parameters.Backbone, folder: Path, report: Report, judge: Judge) -> Source:
    """Return a model of torchvision or timm, with verified weights."""
    canonical = _canonical(params.name)
    library, _, name = canonical.partition("/")
    carried = bundled.of(canonical) if params.weights == "bundled" else None
    published, own = _torchvision_publishes(name) if library == "torchvision" else _timm_publishes(name, report)
    if carried:
        own = carried.preprocessing
    published, path = weights.choose(params, canonical, published, folder, report, judge)

    def build(state: State | None, input_px: int) -> Built:
        if library == "torchvision":
            # Published weights fit one size alone.
            px = own.input_px if params.weights == "default" else input_px
            return modules.from_torchvision(name, px, state)
        is_in_order = carried is not None and carried.is_in_order
        return modules.from_timm(name, params.input_px, state, params.weights, is_in_order)

    return Source(canonical, published, own, path, build)


def save(module: torch.nn.Module, path: Path) -> None:
    """Write the network's tensors as safetensors, the same bytes for the same tensors."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous().clone() for name, tensor in module.state_dict().items()}, path)


def rebuilt(folder: Path) -> tuple[torch.nn.Module, Preprocessing]:
    """Return the extractor of the network that the stage `backbone` wrote to `folder`, and its preprocessing.

    The code is the library's, found by the name in backbone.json; the file holds tensors alone, and no weights are
    downloaded. So nothing that comes from DVC's remote can run code. CheckError where the files are not that stage's.
    """
    with _quiet():
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        known = backbone_folder.read(folder)
        if known.backbone_safetensors_sha256 is None:
            raise ParamError(
                f"the backbone is {known.name}, an ONNX graph, which PyTorch cannot run. Set embed.engine to auto,"
                " onnxruntime or openvino in params.yaml."
            )
        path = backbone_folder.piece(folder, backbone_folder.TENSORS)
        preprocessing = Preprocessing.of(known.preprocessing)
        library, _, name = ("", "", "") if known.hub else _canonical(known.name).partition("/")
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                if known.hub:
                    module = hub_networks.empty(known.hub, preprocessing.input_px)
                elif library == "torchvision":
                    module = modules.from_torchvision(name, preprocessing.input_px, None).module
                else:
                    module = modules.from_timm(name, preprocessing.input_px, None, weights="random").module
            state = module.state_dict()  # carries the versions that some layers ask for
            held = load_file(path)
            if odd := sorted(held.keys() ^ state.keys()):
                raise ValueError(f"{len(odd)} names differ: {count_and_name(odd)}")
            state.update(held)
            module.load_state_dict(state)
        except (RuntimeError, ValueError, AssertionError, SafetensorError) as error:
            said = f"{type(error).__name__}: {error}".strip().splitlines()[-1].strip()
            raise CheckError(
                f"{path} does not hold the tensors of {known.name} ({said}). Run `dvc repro --force backbone`."
            ) from None
    levels = [Level(level.name, level.width, level.pooling) for level in known.levels]
    return extractor(module.eval().requires_grad_(False), levels), preprocessing


def groups_of(params: parameters.Backbone, name: str, weights_folder: Path) -> tuple[Backbone, list[Group]]:
    """Return a network with random weights, so that none are downloaded, and its layer groups."""
    empty = {"name": name, "weights": "random", "sha256": None, "licence": None, "input_px": None}
    backbone = load(params.model_copy(update=empty), weights_folder, lambda message: None)
    return backbone, layer_groups(backbone.module)


# Names, and what the libraries say


def _canonical(name: str) -> str:
    found = _found(name)
    if not found:
        raise ParamError(
            f"backbone.name is '{name}', which is not known.{hint(name)} Set backbone.name in params.yaml."
        )
    return found


def _found(name: str) -> str | None:
    known = known_names()
    return next((each for each in (name, f"torchvision/{name}", f"timm/{name}") if each in known), None)


def is_known(name: str) -> bool:
    """Return whether torchvision or timm has a network of this name."""
    return _found(name) is not None


def hint(name: str) -> str:
    """Return what may be meant by a name that is not known, as a sentence after a space; '' if nothing is near."""
    known = known_names()
    meant = did_you_mean(name, known if "/" in name else [each.partition("/")[2] for each in known])
    owner, _, of_owner = name.partition("/")
    if of_owner and owner not in ("timm", "torchvision"):
        meant += f" On the Hugging Face hub it would be {HUB}{name.rpartition(':')[2]}."
    return meant


def _torchvision_publishes(name: str) -> tuple[Published, Preprocessing]:
    from torchvision import models

    best = models.get_model_weights(name).DEFAULT
    own = best.transforms()
    (input_px,), (resize_px,) = own.crop_size, own.resize_size
    own = Preprocessing(input_px, input_px / resize_px, own.interpolation.value, tuple(own.mean), tuple(own.std))
    licence, file_name = licences.of_library(best.meta.get("license"), "torchvision"), best.url.rpartition("/")[2]
    return Published(f"torchvision: {best}", licence, best.url, file_name, is_on_hub=False), own


def _timm_publishes(name: str, report: Report) -> tuple[Published, Preprocessing]:
    import timm

    cfg: Any = timm.get_pretrained_cfg(name)
    own = modules.preprocessing_of_timm(cfg.to_dict(), name, report)
    url, file_name = cfg.url or "", (cfg.url or "").rpartition("/")[2]
    if cfg.hf_hub_id:  # preferred, as timm does
        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        hub_file = cfg.hf_hub_filename or "model.safetensors"
        url = f"{endpoint}/{cfg.hf_hub_id}/resolve/main/{hub_file}"
        file_name = cfg.hf_hub_id.rpartition("/")[2] + Path(hub_file).suffix
    said, licence = f"timm: {cfg.hf_hub_id or file_name}", licences.of_library(cfg.license, "timm")
    return Published(said, licence, url, file_name, is_on_hub=bool(cfg.hf_hub_id)), own


def _preprocessing(params: parameters.Backbone, own: Preprocessing) -> Preprocessing:
    names = ("input_px", "crop_fraction", "interpolation", "mean", "std")
    chosen = replace(own, **{name: value for name in names if (value := getattr(params, name)) is not None})
    if chosen.interpolation not in ("bilinear", "bicubic"):
        raise ParamError(
            f"backbone.interpolation is null, and '{params.name}' was trained with '{chosen.interpolation}'."
            " bilinear or bicubic was expected. Set backbone.interpolation in params.yaml."
        )
    return chosen


def _levels(module: torch.nn.Module, input_px: int) -> tuple[Level, ...]:
    """Return the levels; ValueError if `module` gives anything but the same finite [B, D] each time."""
    import torch

    with torch.no_grad():
        features: torch.Tensor = module(modules.noise(2, input_px))
        again: torch.Tensor = module(modules.noise(2, input_px))
    if features.ndim != 2 or len(features) != 2:
        raise ValueError(f"features of shape {list(features.shape)} for two images")
    if not torch.isfinite(features).all():
        raise ValueError("features that are not finite")
    if not torch.allclose(features, again, rtol=1e-2, atol=1e-3 * float(features.abs().max())):
        raise ValueError("features that are drawn anew each time")
    return tuple(levels_of(module, input_px))


def _digest(module: torch.nn.Module) -> str:
    sha256 = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        sha256.update(tensor.contiguous().numpy().tobytes())
    return sha256.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the deprecation warnings that torchvision and timm raise in each other."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
