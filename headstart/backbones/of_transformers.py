"""A vision model of Transformers as a module from images to the features that a head reads.

They are what its classifier reads, where it has one; else the pooled output, where its weights are known; else the
class token, or the mean over tokens or positions. The library is imported inside functions, because that takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from headstart.backbones.modules import Built, End, noise
from headstart.base.errors import ParamError, count_and_name
from headstart.onnx.backbone_folder import HubFeatures

if TYPE_CHECKING:
    import torch

    State = dict[str, torch.Tensor]

_CLASSIFIERS = "ForImageClassification"
_CHOICES = (  # what chooses code, or reads other files
    "auto_map",
    "model_args",
    "backbone_kwargs",
    "use_pretrained_backbone",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "use_kernels",
    "dtype",
    "torch_dtype",
)
_PROCESSED = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
    "include_top",
    "default_to_square",
)


class Plan(NamedTuple):
    """What a network is built from."""

    name: str
    config: Mapping[str, Any]  # config.json, without the names of classes
    is_bgr: bool
    takes: HubFeatures | None  # None: what there is


def check_known(kind: str, name: str) -> None:
    """Raise ParamError, which says what to install, where the library is missing or does not know a `model_type`."""
    try:
        from transformers import CONFIG_MAPPING
    except ImportError:
        raise ParamError(
            "backbone.name is a network of Transformers, and the package transformers is not installed. Install the"
            " extra: `make setup EXTRAS=transformers`, or `pip install 'headstart[transformers]'`."
        ) from None
    if kind not in CONFIG_MAPPING:
        raise ParamError(
            f"backbone.name is '{name}', of the kind '{kind}', which the installed transformers does not know. A newer"
            " one may: `uv pip install --upgrade transformers`. Or set another backbone.name in params.yaml."
        )


def defaults(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the library's image processor does where preprocessor_config.json says nothing, as old ones do."""
    import transformers

    said = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    kind = getattr(transformers, said.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast"), None)
    found = {name: getattr(kind, name, None) for name in _PROCESSED} if kind else {}
    return {name: value for name, value in found.items() if isinstance(value, int | float | list | dict)}


def built(plan: Plan, state: State | None, input_px: int, knows_imagenet: bool = False) -> Built:
    """Return the network with the weights of `state`, random ones where it is None.

    ParamError where the weights are not those of the network; whatever the library raises where it cannot build it.
    """
    kind = str(plan.config["model_type"])
    check_known(kind, plan.name)
    with _quiet():
        import transformers

        config = transformers.CONFIG_MAPPING[kind].from_dict(_plain(plan.config))
        is_classifier = any(_CLASSIFIERS in str(each) for each in plan.config.get("architectures") or ())
        if plan.takes in (None, "classifier") and is_classifier:
            model = _made(transformers.AutoModelForImageClassification, config, plan, state, is_whole=True)
            if end := _classifier(model, input_px):
                from torch import nn

                model.set_submodule(end.path, nn.Identity())
                module = _module(model, "classifier", plan.is_bgr)
                return Built(module, None, set(), end if knows_imagenet else End(end.path, None), "classifier")
        model = _made(transformers.AutoModel, getattr(config, "vision_config", config), plan, state, is_whole=False)
        takes = plan.takes or _takes(model, input_px)
        if takes != "pooler" and getattr(model, "pooler", None) is not None:
            model.pooler = None
        return Built(_module(model, takes, plan.is_bgr), None, set(), End("", None), takes)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration, and those in it, without what chooses code or reads other files."""
    return {
        key: _plain(value) if isinstance(value, Mapping) and key.endswith("_config") else value
        for key, value in config.items()
        if key not in _CHOICES
    }


def _made(kind: Any, config: Any, plan: Plan, state: State | None, is_whole: bool) -> Any:
    """Return a model of the library; ParamError unless `state` has all of its tensors.

    `is_whole`: it may have no others either.
    """
    import torch

    try:
        with torch.device("meta"):
            empty = type(kind.from_config(config, trust_remote_code=False))
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ParamError(
            f"backbone.name is '{plan.name}', of the kind '{plan.config['model_type']}', which takes no images alone."
            " A vision model was expected. Set backbone.name in params.yaml."
        ) from None
    given = {"dtype": torch.float32, "attn_implementation": "sdpa" if empty._supports_sdpa else "eager"}
    if state is None:
        return kind.from_config(config, trust_remote_code=False, **given).eval()
    model, said = empty.from_pretrained(
        None,
        config=config,
        state_dict=dict(state),
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **given,
    )
    missing = {key for key in said["missing_keys"] if not key.endswith("mask_token")}
    if not is_whole and any(key.startswith("pooler.") for key in missing):
        missing = {key for key in missing if not key.startswith("pooler.")}
        model.pooler = None  # its weights would be random
    offenders = [f"{key} is missing" for key in sorted(missing)]
    offenders += [f"{key} is {list(found)}, not {list(own)}" for key, found, own in sorted(said["mismatched_keys"])]
    offenders += [f"{key} is none of its tensors" for key in sorted(said["unexpected_keys"]) if is_whole]
    if offenders:
        raise ParamError(
            f"the weights do not fit '{plan.name}': {len(offenders)} of {len(model.state_dict())} tensors differ"
            f" ({count_and_name(offenders)}). Weights of the same model were expected. Set backbone.name or"
            " backbone.weights in params.yaml."
        )
    return model.eval()


def _classifier(model: Any, input_px: int) -> End | None:
    """Return the layer whose output are the answers; None if there is no such one."""
    import torch
    from torch import nn

    ran: list[tuple[str, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _given, out, path=path: ran.append((path, out)))
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        logits = model(pixel_values=noise(2, input_px)).logits
    for hook in hooks:
        hook.remove()
    found = [
        path for path, out in ran if out.numel() == logits.numel() and torch.equal(out.flatten(), logits.flatten())
    ]
    return End(found[-1], model.get_submodule(found[-1])) if found else None


def _takes(model: Any, input_px: int) -> HubFeatures:
    import torch

    with torch.no_grad():
        out = model(pixel_values=noise(2, input_px))
    if getattr(out, "pooler_output", None) is not None:
        return "pooler"
    return "class_token" if out.last_hidden_state.ndim == 3 and _n_class_tokens(model) else "mean"


def _n_class_tokens(model: Any) -> int:
    """Return how many tokens before the patches stand for the whole image."""
    names = {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    if not names & {"cls_token", "class_embedding"}:
        return 0
    registers = int(getattr(model.config, "num_register_tokens", 0) or 0)
    return 1 + registers + ("distillation_token" in names)


def _module(network: Any, takes: HubFeatures, is_bgr: bool) -> Any:
    """Return float [B, 3, I, I] -> float [B, D] of a network of the library, whose weights are under `network.`."""
    import torch

    class OfTransformers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.num_prefix_tokens = _n_class_tokens(network)
            self.class_token = True if self.num_prefix_tokens else None  # as `levels` asks

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = self.network(pixel_values=images.flip(1) if is_bgr else images)
            if takes == "classifier":
                features: torch.Tensor = out.logits
            elif takes == "pooler":
                features = out.pooler_output
            elif takes == "class_token":
                features = out.last_hidden_state[:, 0]
            else:
                last = out.last_hidden_state
                features = last.mean((2, 3)) if last.ndim == 4 else last.mean(1)
            return features.flatten(1)

    return OfTransformers()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the library's notes and bars; its errors still raise."""
    from transformers.utils import logging as theirs

    logging: Any = theirs
    level, shows = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows:
            logging.enable_progress_bar()
