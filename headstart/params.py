"""params.yaml -> frozen models. Unknown names are refused with the nearest known one; no default lives here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from headstart.base.errors import ParamError, did_you_mean, on_one_line
from headstart.param_types import (
    LINEAR_KINDS,
    AdaptMethods,
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
    Section,
    Seed,
    Triple,
    finite,
)
from headstart.params_finetune import Finetune as Finetune

ONNX = "onnx"  # backbone.name of a graph of the user's
RANKED = "ranked"  # backbone.name where the stage `rank` chooses
BUNDLED, AUTO = "bundled", "auto"  # backbone.weights as shipped; those of a candidate of which nothing is said


class Data(Section):
    """Where the images are, and how their folders and values are read."""

    root: Annotated[str, Field(min_length=1)]
    unlabelled: ImagesOrNone
    layout: FolderLayout
    bits: Bits
    normalise_labels: bool
    allow_outside: bool


class Cluster(Section):
    """Which machines compute pixels and features, and where these lie."""

    address: Annotated[str, Field(min_length=1)] | None
    store: Annotated[str, Field(min_length=1)] | None


class Cache(Section):
    """Where this machine keeps what all projects share, and how much of it."""

    dir: Annotated[str, Field(min_length=1)] | None
    max_gb: Annotated[float, Field(gt=0), AfterValidator(finite)]
    backbones: bool


class Validate(Section):
    """What the stage `validate` lets pass."""

    max_quarantined_fraction: Fraction
    min_images: Annotated[int, Field(ge=1)]
    max_pixels: Annotated[int, Field(ge=1, le=178_956_970)]  # Pillow's own limit
    max_seconds: Annotated[int, Field(ge=1)]
    max_mb: Annotated[int, Field(ge=1)]
    timeout_s: Positive
    damaged_jpegs: Literal["refuse", "accept"]
    thorough: bool


class Split(Section):
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


class Backbone(Section):
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

    @property
    def is_ranked(self) -> bool:
        """Whether it is the winner of the stage `rank`."""
        return self.name == RANKED

    @model_validator(mode="after")
    def _leaves_the_winner_its_own_values(self) -> Backbone:
        given = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        del given["name"]
        if self.weights == BUNDLED:
            del given["weights"]
        if self.is_ranked and given:
            name, value = next(iter(given.items()))
            usual = BUNDLED if name == "weights" else "null"
            raise ValueError(
                f"name is {RANKED!r}, and {name} is {value!r}; each candidate of rank.backbones has its own, so set it"
                f" to {usual}"
            )
        return self

    @model_validator(mode="after")
    def _has_no_option_without_effect(self) -> Backbone:
        given = [name for name in ("outputs", "channel_order") if getattr(self, name) is not None]
        if given and not self.is_onnx:
            raise ValueError(f"name is {self.name!r}, and {given[0]} is for {ONNX} alone, set it to null")
        return self


def _candidate(value: object) -> object:
    """Return a backbone of which a name or some values are given, with all values: null where nothing is said."""
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        return value
    if given.get("name") == RANKED:
        raise ValueError(f"the name of a network is expected; {RANKED!r} is the winner among these")
    return {**dict.fromkeys(Backbone.model_fields), "weights": AUTO, **given}


Candidate = Annotated[Backbone, BeforeValidator(_candidate)]


class Rank(Section):
    """Which backbones are compared, and what the winner may cost."""

    backbones: Annotated[tuple[Candidate, ...], Field(strict=False)]
    max_ms: Positive | None
    max_mb: Positive | None
    racing: bool
    max_images: Annotated[int, Field(ge=50)]
    seed: Seed

    @model_validator(mode="after")
    def _compares_each_once(self) -> Rank:
        for number, each in enumerate(self.backbones):
            if each in self.backbones[:number]:
                raise ValueError(f"backbones names {each.name!r} twice with the same values; name it once")
        return self


class Transform(Section):
    """How an image becomes a square, and whether its pixels are kept."""

    fit: Literal["crop", "squeeze", "pad"]
    keep_pixels: bool


class Embed(Section):
    """How features are computed."""

    engine: Literal["auto", "onnxruntime", "openvino", "torch"]
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None
    dtype: Literal["float32", "float16"]
    views: Annotated[int, Field(ge=0, le=1000)]
    seed: Seed


class TrainHead(Section):
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


class Adapt(Section):
    """How the head is brought to the images without labels, and whether that ships."""

    enabled: bool
    ship: bool
    methods: AdaptMethods
    choose_by: Literal["reverse", "importance", "density"]
    seed: Seed

    @model_validator(mode="after")
    def _has_something_to_ship(self) -> Adapt:
        if self.ship and not self.enabled:
            raise ValueError("ship is true, and enabled is false, so there is nothing to ship; set enabled to true")
        return self


class Audit(Section):
    """What the stage `audit` looks for, and when it warns."""

    enabled: bool
    on_leak: Literal["report", "move", "error"]
    false_alarm: Annotated[float, Field(ge=0.004, le=0.5)]
    interval_width: Annotated[float, Field(gt=0, le=1)]
    seed: Seed


class Evaluate(Section):
    """How the held-out images are reported."""

    seed: Seed
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)]
    ece_bins: Annotated[int, Field(ge=2, le=100)]
    wanted_accuracy: Fraction
    coverage: ProperFraction


class Report(Section):
    """What the report shows."""

    seed: Seed
    gallery_images: Annotated[int, Field(ge=0, le=500)]
    overlays: bool
    umap: bool


class Export(Section):
    """What is handed over beside the model."""

    licences: Licences
    conformance_images: Annotated[int, Field(ge=1, le=1000)]
    parity_images: Annotated[int, Field(ge=0)] | None
    int8: bool
    int8_max_accuracy_drop: Fraction
    gate: Annotated[str, Field(pattern=r"^(newest|v\d+\.\d+\.\d+)$")] | None


class Params(Section):
    """The whole of params.yaml, one section a stage."""

    data: Data
    validate_: Annotated[Validate, Field(alias="validate")]  # pydantic keeps the plain name for itself
    split: Split
    backbone: Backbone
    rank: Rank
    cluster: Cluster
    cache: Cache
    transform: Transform
    embed: Embed
    train_head: TrainHead
    adapt: Adapt
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
    if params.backbone.is_ranked and not params.rank.backbones:
        raise ParamError(
            f"backbone.name is '{RANKED}', and rank.backbones names none to choose among. Name some there, such as"
            f" [tf_efficientnet_lite0, tf_efficientnet_lite1], in {where}."
        )
    may_be = params.rank.backbones if params.backbone.is_ranked else (params.backbone,)
    if params.finetune.enabled and any(each.is_onnx for each in may_be):
        which, mend = f"backbone.name is '{ONNX}'", "backbone.name to a network"
        if params.backbone.is_ranked:
            which, mend = f"rank.backbones has '{ONNX}'", "networks alone in rank.backbones,"
        raise ParamError(
            f"finetune.enabled is true and {which}. Such a graph can be run but not trained: it has no layers that"
            f" PyTorch knows. Set finetune.enabled to false, or {mend} of torchvision or timm, in {where}."
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
