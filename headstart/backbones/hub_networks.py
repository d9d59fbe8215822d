"""A backbone.name such as hf-hub:timm/resnet18.a1_in1k -> its network, its weights and its preprocessing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import hub, hub_config, modules, of_transformers, weights
from headstart.backbones.hub import CONFIG, PREPROCESSORS, WEIGHTS, Pin
from headstart.backbones.hub_config import Prepared
from headstart.backbones.modules import Built, Source
from headstart.backbones.weights import Published
from headstart.base.errors import ParamError, did_you_mean
from headstart.base.licences import Licence
from headstart.onnx.backbone_folder import HubRecord

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]

_ELSEWHERE = {"source", "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "custom_load"}  # where weights are


def source(
    params: parameters.Backbone, folder: Path, report: Callable[[str], None], judge: Callable[[Licence], None]
) -> Source:
    """Return what `params` asks for of the hub, with verified weights; ParamError where there is none that can be used.

    `judge` may raise to refuse the licence, before weights are downloaded.
    """
    pin = hub.pinned(params.name, folder, report)
    data, digest = hub.text(pin, CONFIG)
    config, read = hub_config.parsed(data, CONFIG, params.name), {CONFIG: digest}
    library = hub_config.library_of(config, params.name)
    if library == "transformers":
        of_transformers.check_known(config["model_type"], params.name)
        prepared, more = _processor(pin, config, params.name)
        read |= more
        is_imagenet = hub_config.knows_palace(config.get("id2label"))
    else:
        prepared, is_imagenet = _prepared_by_timm(config, params.name, report), _is_imagenet(config)
    if prepared.is_squeezed:
        report(f"{pin.repository} was trained with whole images, squeezed; transform.fit=squeeze shows them like that")
    own = prepared.complete(params.model_dump(), params.name)
    published = Published(f"hf-hub: {pin.repository}@{pin.commit}", hub.licence(pin), "", "", is_on_hub=True)
    published, path = _weights(params, pin, published, folder, report, judge, read)
    record = HubRecord(
        repository=pin.repository,
        revision=pin.commit,
        library=library,
        files=read,
        network=hub_config.without_labels(config),
        takes="classifier",
        channel_order=prepared.channel_order,
    )
    build = partial(_built, record, params, is_imagenet and params.weights == "default")
    return Source(pin.name, published, own, path, build, record)


def empty(record: HubRecord, input_px: int) -> torch.nn.Module:
    """Return the network that a backbone.json describes, with random weights; nothing is downloaded."""
    if record.library == "timm":
        return _of_timm(record, None, input_px, None).module
    return of_transformers.built(_plan(record, record.repository, record.takes), None, input_px).module


def _weights(
    params: parameters.Backbone,
    pin: Pin,
    published: Published,
    folder: Path,
    report: Callable[[str], None],
    judge: Callable[[Licence], None],
    read: dict[str, str],
) -> tuple[Published, Path | None]:
    """Return the verified file of weights, None for random ones; what was read of the repository is added to `read`."""
    if params.weights != "default":
        return weights.choose(params, pin.name, published, folder, report, judge)
    licence = weights.licence_of(params, published.licence)
    judge(licence)
    path, read[WEIGHTS] = hub.weights(pin, params.sha256, report)
    return replace(published, licence=licence), path


def _built(
    record: HubRecord, params: parameters.Backbone, knows_imagenet: bool, state: State | None, input_px: int
) -> Built:
    if record.library == "transformers":
        return of_transformers.built(_plan(record, params.name, None), state, input_px, knows_imagenet)
    made = _of_timm(record, state, params.input_px, params.weights)
    return made if knows_imagenet else made._replace(end=modules.End(made.end.path, None))


def _plan(record: HubRecord, name: str, takes: Any) -> of_transformers.Plan:
    return of_transformers.Plan(name, record.network, record.channel_order == "bgr", takes)


# timm


def _of_timm(record: HubRecord, state: State | None, input_px: int | None, kind: str | None) -> Built:
    name, arguments = record.network["architecture"], record.network.get("model_args") or {}
    return modules.from_timm(
        name, input_px, state, kind or "random", cfg=_timm_cfg(record.network), arguments=arguments
    )


def _timm_cfg(config: dict[str, Any]) -> dict[str, Any]:
    """Return timm's pretrained_cfg, which older repositories have at the top; where weights come from is left out."""
    from timm.models import PretrainedCfg

    cfg = dict(config.get("pretrained_cfg") or config)
    if "num_classes" in config:
        cfg["num_classes"] = config["num_classes"]
    kept = PretrainedCfg.__dataclass_fields__.keys() - _ELSEWHERE
    return {name: tuple(each) if isinstance(each, list) else each for name, each in cfg.items() if name in kept}


def _is_imagenet(config: dict[str, Any]) -> bool:
    """Return whether the classes are ImageNet's 1000: by their names, or by the tag that timm gives to its own."""
    cfg = config.get("pretrained_cfg") or config
    labels = config.get("label_names") or cfg.get("label_names") or cfg.get("labels")
    return hub_config.knows_palace(labels) if labels else str(cfg.get("tag") or "").endswith("in1k")


def _prepared_by_timm(config: dict[str, Any], name: str, report: Callable[[str], None]) -> Prepared:
    import timm

    architecture = config["architecture"]
    if not timm.is_model(architecture):
        hint = did_you_mean(architecture, timm.list_models())
        raise ParamError(
            f"backbone.name is '{name}', of the architecture '{architecture}', which the installed timm does not"
            f" know.{hint} A newer one may: `uv pip install --upgrade timm`. Or set another backbone.name in"
            " params.yaml."
        )
    own = modules.preprocessing_of_timm(_timm_cfg(config), name, report)
    return Prepared(own.input_px, own.crop_fraction, own.interpolation, own.mean, own.std)


# Transformers


def _processor(pin: Pin, config: dict[str, Any], name: str) -> tuple[Prepared, dict[str, str]]:
    """Return the preprocessing of a repository, and what was read for it."""
    for file in PREPROCESSORS:
        if file in pin.files:
            data, digest = hub.text(pin, file)
            values = hub_config.parsed(data, file, name)
            values = values.get("image_processor") or values
            return hub_config.prepared({**of_transformers.defaults(values), **values}, config), {file: digest}
    return Prepared(hub_config.side(config.get("image_size")), None, None, None, None), {}
