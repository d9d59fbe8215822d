"""params.yaml -> frozen models. Unknown names are refused with the nearest known one; no default lives here."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from headstart.base.errors import ParamError, did_you_mean, on_one_line
from headstart.param_types import (
    LINEAR_KINDS,
    Bits,
    ClassWeight,
    FolderLayout,
    Fraction,
    HeadKinds,
    HeadLevels,
    ImagesOrNone,
    Licence,
    Licences,
    Positive,
    ProperFraction,
    Seed,
    Triple,
    Unfreeze,
    finite,
)

ONNX = "onnx"  # backbone.name of a graph of the user's


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(_Section):
    """Where the images are, and how their folders and values are read."""

    root: Annotated[str, Field(min_length=1)]
    unlabelled: ImagesOrNone
    layout: FolderLayout
    bits: Bits
    normalise_labels: bool
    allow_outside: bool


class Cluster(_Section):
    """Which machines compute pixels and features, and where these lie."""

    address: Annotated[str, Field(min_length=1)] | None
    store: Annotated[str, Field(min_length=1)] | None


class Cache(_Section):
    """Where this machine keeps what all projects share, and how much of it."""

    dir: Annotated[str, Field(min_length=1)] | None
    max_gb: Annotated[float, Field(gt=0), AfterValidator(finite)]
    backbones: bool


class Validate(_Section):
    """What the stage `validate` lets pass."""

    max_quarantined_fraction: Fraction
    min_images: Annotated[int, Field(ge=1)]
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)]  # Pillow's own limit
    max_seconds: Annotated[int, Field(ge=1)]
    max_mb: Annotated[int, Field(ge=1)]
    timeout_s: Positive
    damaged_jpegs: Literal["refuse", "accept"]
    thorough: bool


class Split(_Section):
    """How images are divided into train, val and test."""

    method: Literal["hash", "stratified"]
    seed: Seed
    val_fraction: ProperFraction
    test_fraction: ProperFraction

    @model_validator(mode="after")
    def _leaves_training_images(self) -> Split:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction {self.val_fraction} and test_fraction {self.test_fraction} leave nothing to train on;"
                " their sum must be below 1"
            )
        return self


class Backbone(_Section):
    """Which network, which weights, and what differs from their own preprocessing."""

    name: Annotated[str, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    licence: Licence | None
    outputs: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None
    channel_order: Literal["rgb", "bgr"] | None
    input_px: Annotated[int, Field(ge=16, le=2048)] | None
    crop_fraction: Annotated[float, Field(ge=0.25, le=1)] | None
    interpolation: Literal["bilinear", "bicubic"] | None
    mean: Annotated[Triple, Field(strict=False)] | None
    std: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] | None

    @property
    def is_onnx(self) -> bool:
        """Whether the network is an ONNX graph of the user's."""
        return self.name == ONNX

    @model_validator(mode="after")
    def _has_no_option_without_effect(self) -> Backbone:
        given = [name for name in ("outputs", "channel_order") if getattr(self, name) is not None]
        if given and not self.is_onnx:
            raise ValueError(f"name is {self.name!r}, and {given[0]} is for {ONNX} alone, set it to null")
        return self


class Transform(_Section):
    """How an image becomes a square, and whether its pixels are kept."""

    fit: Literal["crop", "squeeze", "pad"]
    keep_pixels: bool


class Embed(_Section):
    """How features are computed."""

    engine: Literal["auto", "onnxruntime", "openvino", "torch"]
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None
    dtype: Literal["float32", "float16"]
    views: Annotated[int, Field(ge=0, le=1000)]
    seed: Seed


class TrainHead(_Section):
    """How the head is chosen and fitted."""

    kinds: HeadKinds
    levels: HeadLevels
    select_by: Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1"]
    strengths: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    folds: Annotated[int, Field(ge=2, le=50)]
    class_weight: ClassWeight
    logit_adjustment: Annotated[float, Field(ge=0), AfterValidator(finite)]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    memory_mb: Annotated[int, Field(ge=700)]
    seed: Seed

    @model_validator(mode="after")
    def _has_heads_to_blend(self) -> TrainHead:
        if "blend" in self.kinds and len({*self.kinds} & {*LINEAR_KINDS}) < (1 if self.levels == "auto" else 2):
            raise ValueError(f"kinds has blend, but no two heads to blend; name more of {', '.join(LINEAR_KINDS)}")
        return self


class Audit(_Section):
    """What the stage `audit` looks for, and when it warns."""

    enabled: bool
    on_leak: Literal["report", "move", "error"]
    false_alarm: Annotated[float, Field(ge=0.004, le=0.5)]
    interval_width: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class Finetune(_Section):
    """Whether and how the backbone is trained further."""

    enabled: bool
    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    accumulate: Annotated[int, Field(ge=1)]
    unfreeze: Unfreeze
    train_norms: bool
    optimizer: Literal["adamw", "sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] | None
    lr: Positive
    lr_decay: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0), AfterValidator(finite)]
    warmup_epochs: Annotated[float, Field(ge=0), AfterValidator(finite)]
    step_epochs: Annotated[int, Field(ge=1)] | None
    step_factor: Annotated[float, Field(gt=0, lt=1)] | None
    clip_norm: Positive | None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    mixup: Annotated[float, Field(ge=0), AfterValidator(finite)]
    cutmix: Annotated[float, Field(ge=0), AfterValidator(finite)]
    ema_decay: ProperFraction | None
    patience: Annotated[int, Field(ge=1)] | None
    views: Annotated[int, Field(ge=0, le=1000)]
    crop_area: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    policy: Literal["none", "trivial", "rand"]
    erasing: Fraction
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    devices: Annotated[int, Field(ge=1)]
    hosts: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0)] | None
    checkpoint_minutes: Positive

    @model_validator(mode="after")
    def _has_no_option_without_effect(self) -> Finetune:
        """Of a disabled stage no option has an effect, and any may be set."""
        if not self.enabled:
            return self
        schedule = self.unfreeze if isinstance(self.unfreeze, dict) else {1: self.unfreeze}
        counts = [math.inf if schedule[epoch] == "all" else schedule[epoch] for epoch in sorted(schedule)]
        offences = {
            f"momentum is {self.momentum}, which adamw has no use for; set it to null": (
                self.optimizer == "adamw" and self.momentum is not None
            ),
            f"step_epochs is {self.step_epochs} and step_factor {self.step_factor}; both or neither are expected": (
                (self.step_epochs is None) != (self.step_factor is None)
            ),
            f"warmup_epochs is {self.warmup_epochs}, and there are {self.epochs} epochs; fewer are expected": (
                self.warmup_epochs >= self.epochs
            ),
            f"step_epochs is {self.step_epochs}, and there are {self.epochs} epochs; it would have no effect": (
                self.step_epochs is not None and self.step_epochs >= self.epochs
            ),
            f"patience is {self.patience}, and there are {self.epochs} epochs; it would have no effect": (
                self.patience is not None and self.patience >= self.epochs
            ),
            f"accumulate is {self.accumulate}, more than the batch_size {self.batch_size}": (
                self.accumulate > self.batch_size
            ),
            f"batch_size is {self.batch_size}, and {self.devices * self.hosts} devices share it; more are expected": (
                self.batch_size < self.devices * self.hosts
            ),
            f"unfreeze names epoch {max(schedule, default=0)}, and there are {self.epochs}; it would have no effect": (
                max(schedule, default=0) > self.epochs
            ),
            f"unfreeze is {self.unfreeze}, which freezes what was trained; a number may not be below the one before": (
                counts != sorted(counts)
            ),
            "unfreeze is {}; {epoch: groups} is expected": not schedule,
            "train_norms is true, and no group is unfrozen; set it to false": self.train_norms and not any(counts),
            f"views is {self.views}, and mixup and cutmix mix new pixels in every step; set views, or both, to 0": (
                bool(self.views and (self.mixup or self.cutmix))
            ),
            f"views is {self.views}, and nothing stays frozen, so there is nothing to keep of them; set it to 0": (
                bool(self.views) and counts[:1] == [math.inf]
            ),
        }
        for offence, is_made in offences.items():
            if is_made:
                raise ValueError(offence)
        return self


class Evaluate(_Section):
    """How the held-out images are reported."""

    seed: Seed
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)]
    ece_bins: Annotated[int, Field(ge=2, le=100)]
    wanted_accuracy: Fraction
    coverage: ProperFraction


class Report(_Section):
    """What the report shows."""

    seed: Seed
    gallery_images: Annotated[int, Field(ge=0, le=500)]
    overlays: bool
    umap: bool


class Export(_Section):
    """What is handed over beside the model."""

    licences: Licences
    conformance_images: Annotated[int, Field(ge=1, le=1000)]
    parity_images: Annotated[int, Field(ge=0)] | None
    int8: bool
    int8_max_accuracy_drop: Fraction
    gate: Annotated[str, Field(pattern=r"^(newest|v\d+\.\d+\.\d+)$")] | None


class Params(_Section):
    """The whole of params.yaml, one section a stage."""

    data: Data
    validate_: Annotated[Validate, Field(alias="validate")]  # pydantic keeps the plain name for itself
    split: Split
    backbone: Backbone
    cluster: Cluster
    cache: Cache
    transform: Transform
    embed: Embed
    train_head: TrainHead
    audit: Audit
    finetune: Finetune
    evaluate: Evaluate
    report: Report
    export: Export


def parse(values: object, where: str = "params.yaml", remedy: str = "") -> Params:
    """Check nested plain values, as YAML gives them, and return the parameters. `remedy` ends what is said of one."""
    if not isinstance(values, dict):
        raise ParamError(f"{where} holds {type(values).__name__}. Sections such as `split:` were expected.")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        known_last = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        raise ParamError(_explain(known_last[0], len(known_last), where, remedy or f"Mend it in {where}.")) from None
    if params.finetune.enabled and params.backbone.is_onnx:
        raise ParamError(
            f"finetune.enabled is true and backbone.name is '{ONNX}'. Such a graph can be run but not trained: it has"
            " no layers that PyTorch knows. Set finetune.enabled to false, or backbone.name to a network of torchvision"
            f" or timm, in {where}."
        )
    return params


def _explain(error: Any, n_errors: int, where: str, remedy: str) -> str:
    name = ".".join(part for part in error["loc"] if isinstance(part, str))  # without positions in lists
    is_short_list = error["type"] == "missing" and not isinstance(error["loc"][-1], str)
    if error["type"] == "invalid_key":
        name = ".".join(map(str, error["loc"]))
    if error["type"] in ("extra_forbidden", "invalid_key"):
        text = f"{on_one_line(name)} is not a parameter.{did_you_mean(name, names())} Mend its name in {where}."
    elif error["type"] == "missing" and not is_short_list:
        text = f"{name} is missing. Every parameter must be given. Add it to {where}, or restore the file with git."
    else:
        said = "more values are expected" if is_short_list else error["msg"].removeprefix("Value error, ")
        text = f"{name} is {on_one_line(repr(error['input']))}: {said}. {remedy}"
        if isinstance(error["input"], BaseModel | dict):  # a rule about a whole section states its own values
            text = f"{name}: {said}. {remedy}"
    return text + (f" ({n_errors - 1} more like it.)" if n_errors > 1 else "")


def names() -> list[str]:
    """Return the names of all sections and, dotted, of all parameters."""
    found = []
    for name, field in Params.model_fields.items():
        section = field.alias or name
        found += [section, *(f"{section}.{inner}" for inner in field.annotation.model_fields)]  # type: ignore[union-attr]
    return found
