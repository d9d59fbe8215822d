"""What the configuration files of a repository on the hub say: which library's network it is, and its preprocessing.

timm keeps both in config.json, Transformers the second in preprocessor_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import ParamError, count_and_name

Values = Mapping[str, Any]
Triple = tuple[float, float, float]
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
_CONVNEXT_WHOLE_PX = 384  # from this size on, ConvNeXt's processor squeezes the whole image
_LEVIT = 256 / 224  # by which LeViT's processor resizes to more than it says
_LABELS = ("id2label", "label2id", "label_names", "label_descriptions", "labels")
PALACE = 698  # ImageNet's number of it


class Prepared(NamedTuple):
    """What a preprocessor does to images; None where it does not say."""

    input_px: int | None
    crop_fraction: float | None
    interpolation: str | None
    mean: Triple | None
    std: Triple | None
    channel_order: Literal["rgb", "bgr"] = "rgb"
    is_squeezed: bool = False  # the whole image, distorted

    def complete(self, given: Values, name: str) -> Preprocessing:
        """Return it with `given`, values of params.yaml, in its place; ParamError for what neither says."""
        names = ("input_px", "crop_fraction", "interpolation", "mean", "std")
        values = {each: given[each] if given[each] is not None else getattr(self, each) for each in names}
        if missing := [f"backbone.{each}" for each, value in values.items() if value is None]:
            raise ParamError(
                f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} null, and the repository of {name} does"
                " not say how its images were prepared. Its page may. Set them in params.yaml."
            )
        return Preprocessing(**values)


def parsed(data: bytes, file: str, name: str) -> dict[str, Any]:
    """Return the object in a JSON file of the repository of `name`; ParamError if there is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ParamError(f"{file} of {name} holds no JSON object. One was expected. Set backbone.name in params.yaml.")
    return value


def library_of(config: Values, name: str) -> Literal["timm", "transformers"]:
    """Return whose network a config.json describes; ParamError if it is neither's, or would run code of its own."""
    if config.get("auto_map"):
        raise ParamError(
            f"backbone.name is '{name}', whose repository brings its own Python code. Such code is never run. A network"
            " that timm or Transformers has was expected. Set backbone.name in params.yaml."
        )
    if config.get("quantization_config"):
        raise ParamError(
            f"backbone.name is '{name}', whose weights are quantised. Weights in floating point were expected. Set"
            " backbone.name in params.yaml."
        )
    if isinstance(config.get("model_type"), str):
        return "transformers"
    if isinstance(config.get("architecture"), str):
        return "timm"
    raise ParamError(
        f"backbone.name is '{name}', whose config.json is neither timm's nor Transformers' (it has"
        f" {count_and_name(config) or 'nothing'}). `architecture` or `model_type` was expected. Set backbone.name in"
        " params.yaml."
    )


def without_labels(config: Values) -> dict[str, Any]:
    """Return a configuration without the names of its classes, which can be most of it; their number stays."""
    kept = {key: value for key, value in config.items() if key not in _LABELS}
    if isinstance(config.get("id2label"), dict):
        kept["num_labels"] = len(config["id2label"])
    if isinstance(config.get("pretrained_cfg"), dict):
        kept["pretrained_cfg"] = without_labels(config["pretrained_cfg"])
    return kept


def knows_palace(labels: object) -> bool:
    """Return whether classes, by number or in a list, are ImageNet's 1000: whether the palace is where it should be."""
    if isinstance(labels, Mapping):
        return "palace" in str(labels.get(str(PALACE), labels.get(PALACE, "")))
    return isinstance(labels, list) and len(labels) > PALACE and str(labels[PALACE]) in ("n03877845", "palace")


def prepared(processor: Values, config: Values) -> Prepared:
    """Return what Transformers' image processor does to an image.

    `processor`: of preprocessor_config.json, or what is under `image_processor` in processor_config.json.
    """
    input_px, crop_fraction, is_squeezed = _sizes(processor, side(config.get("image_size")))
    resample = processor.get("resample", 2)
    order: Literal["rgb", "bgr"] = "bgr" if processor.get("do_flip_channel_order") else "rgb"
    mean, std = _normalisation(processor)
    if order == "bgr" and mean and std:  # ours are in the order of the image
        mean, std = (mean[2], mean[1], mean[0]), (std[2], std[1], std[0])
    return Prepared(input_px, crop_fraction, _RESAMPLING.get(resample, str(resample)), mean, std, order, is_squeezed)


def _normalisation(processor: Values) -> tuple[Triple, Triple] | tuple[None, None]:
    """Return mean and std for pixels in 0..1, of (pixel * factor + offset - mean) / std.

    EfficientNet's processor divides by std twice where its `include_top` is true.
    """
    factor = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1.0
    offset = -1.0 if processor.get("rescale_offset") else 0.0
    mean: Triple | None = (0.0, 0.0, 0.0)
    std: Triple | None = (1.0, 1.0, 1.0)
    if processor.get("do_normalize", True):
        mean, std = _triple(processor.get("image_mean")), _triple(processor.get("image_std"))
    if mean is None or std is None or not isinstance(factor, float | int) or factor <= 0:
        return None, None
    power = 2 if processor.get("include_top") else 1
    shift = _triple([(each - offset) / (255 * factor) for each in mean])
    scale = _triple([each**power / (255 * factor) for each in std])
    return (shift, scale) if shift and scale else (None, None)


def _triple(value: object) -> Triple | None:
    if isinstance(value, int | float):
        value = [value] * 3
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(x, int | float) for x in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])


def _sizes(processor: Values, own_px: int | None) -> tuple[int | None, float | None, bool]:
    """Return the side of what the network sees, its share of the resized square, and whether all is squeezed in."""
    crop = side(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if not processor.get("do_resize", True):
        return (crop or own_px), 1.0, False
    size = processor.get("size")
    if isinstance(size, int):
        is_square = processor.get("default_to_square", not crop)
        size = {"height": size, "width": size} if is_square else {"shortest_edge": size}
    size = size if isinstance(size, Mapping) else {}
    shortest, whole = size.get("shortest_edge"), side(size)
    if isinstance(shortest, int):
        said = processor.get("crop_pct")
        share = float(said) if isinstance(said, float | int) and 0 < said <= 1 else None
        if crop:
            resized = shortest / share if share else shortest * _LEVIT if _is_levit(processor) else shortest
            return crop, min(1.0, crop / int(resized)), False
        if share:
            is_whole = shortest >= _CONVNEXT_WHOLE_PX
            return shortest, 1.0 if is_whole else share, is_whole
        return shortest, 1.0, False
    if whole:
        return (crop, crop / whole, True) if crop and crop <= whole else (whole, 1.0, True)
    return own_px, None, False


def _is_levit(processor: Values) -> bool:
    said = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    return said.lower().startswith("levit")


def side(value: object) -> int | None:
    """Return the side of a square, said as a number, a pair or by height and width; None where it is none."""
    if isinstance(value, Mapping):
        value = [value.get("height"), value.get("width")]
    if isinstance(value, list | tuple):
        value = value[0] if len(value) == 2 and value[0] == value[1] else None
    return value if isinstance(value, int) and value > 0 else None
