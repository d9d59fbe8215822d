"""What preprocessor_config.json says is what Transformers' own processors do with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import transformers

from headstart.backbones import checks, export, of_transformers
from headstart.backbones.hub_config import Prepared, knows_palace, library_of, parsed, prepared, without_labels
from headstart.backbones.preprocessing import Preprocessing
from headstart.base.errors import ParamError

MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
NONE_GIVEN = dict.fromkeys(("input_px", "crop_fraction", "interpolation", "mean", "std"))


def both(kind: str, **given: Any) -> tuple[Preprocessing, Any]:
    """Return our preprocessing and the library's processor, from what the library writes."""
    processor = getattr(transformers, kind)(**given)
    return prepared(processor.to_dict(), {}).complete(NONE_GIVEN, "net"), processor


PROCESSORS: list[tuple[str, dict[str, Any], tuple[int, int, str]]] = [
    ("ViTImageProcessor", {"size": {"height": 64, "width": 64}}, (64, 64, "bilinear")),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 64}, "crop_size": 64}, (64, 64, "bicubic")),
    ("BitImageProcessor", {"size": {"shortest_edge": 72}, "crop_size": 64}, (64, 72, "bicubic")),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 56}, "crop_pct": 0.875}, (56, 64, "bicubic")),
    (
        "PoolFormerImageProcessor",
        {"size": {"shortest_edge": 54}, "crop_size": {"height": 54, "width": 54}, "crop_pct": 0.9},
        (54, 60, "bicubic"),
    ),
    (
        "EfficientNetImageProcessor",
        {"size": {"height": 64, "width": 64}, "rescale_factor": 1 / 127.5, "rescale_offset": True, "resample": 2},
        (64, 64, "bilinear"),
    ),
]


@pytest.mark.parametrize(("kind", "given", "expected"), PROCESSORS)
def test_a_network_is_given_what_the_librarys_processor_gives_it(
    kind: str, given: dict[str, Any], expected: tuple[int, int, str]
) -> None:
    ours, processor = both(kind, **given, image_mean=MEAN, image_std=STD)
    assert (ours.input_px, ours.resize_px, ours.interpolation) == expected
    pixels = np.random.default_rng(0).integers(0, 256, (1, ours.resize_px, ours.resize_px, 3), dtype=np.uint8)
    theirs = np.asarray(processor(list(pixels), return_tensors="np")["pixel_values"])  # its resize has nothing to do
    assert np.allclose(np.asarray(checks.prepared(pixels, ours)), theirs, atol=1e-5)


def test_on_a_photograph_the_centre_that_is_cropped_is_the_same() -> None:
    """Apart from the resize itself, which in theirs is torchvision's, and in ours Pillow's."""
    ours, processor = both("BitImageProcessor", size={"shortest_edge": 72}, crop_size=64)
    resize, pixels = export.resized(ours)
    assert resize
    theirs = processor(export.photographs()[0].copy(), return_tensors="np")["pixel_values"]
    own = np.asarray(checks.prepared(pixels[:1], ours))
    assert np.abs(own - np.asarray(theirs)).mean() < 0.1 * np.abs(own).mean()


@pytest.mark.parametrize(
    ("said", "config", "expected"),
    [
        ({"size": 224}, {}, (224, 1.0, True)),
        ({"size": 256, "crop_size": 224, "do_center_crop": True}, {}, (224, 0.875, False)),
        ({"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": True}, {}, (224, 0.875, True)),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, {}, (384, 1.0, True)),
        ({"do_resize": False}, {"image_size": [96, 96]}, (96, 1.0, False)),
        ({"size": {"height": 224, "width": 192}}, {}, (None, None, False)),
        ({"size": 224, "crop_pct": 0.875, "default_to_square": False}, {}, (224, 0.875, False)),
        ({"size": 256, "crop_size": 224, "do_center_crop": True, "default_to_square": True}, {}, (224, 0.875, True)),
        (
            {
                "size": {"shortest_edge": 224},
                "crop_size": 224,
                "do_center_crop": True,
                "image_processor_type": "LevitImageProcessor",
            },
            {},
            (224, 0.875, False),
        ),
        ({"size": {"longest_edge": 224}}, {"image_size": 224}, (224, None, False)),
    ],
)
def test_sizes_are_read_in_all_their_spellings(
    said: dict[str, Any], config: dict[str, Any], expected: tuple[Any, Any, bool]
) -> None:
    found = prepared({"image_mean": MEAN, "image_std": STD, **said}, config)
    assert (found.input_px, found.crop_fraction, found.is_squeezed) == expected


def test_what_is_not_normalised_is_in_0_to_1_or_0_to_255() -> None:
    plain = prepared({"do_normalize": False, "size": 32}, {})
    assert (plain.mean, plain.std) == ((0.0,) * 3, (1.0,) * 3)
    raw = prepared({"do_normalize": False, "do_rescale": False, "size": 32}, {})
    assert raw.std == pytest.approx((1 / 255,) * 3)
    assert prepared({"image_mean": "x", "image_std": STD, "size": 32}, {}).mean is None


def test_values_of_params_yaml_fill_in_and_override() -> None:
    found = Prepared(224, None, "bicubic", (0.1,) * 3, (0.2,) * 3)
    with pytest.raises(
        ParamError, match=r"^backbone.crop_fraction is null, and the repository of net does not say how"
    ):
        found.complete(NONE_GIVEN, "net")
    assert found.complete({**NONE_GIVEN, "crop_fraction": 0.9, "input_px": 96}, "net").resize_px == round(96 / 0.9)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000, b"3"])
def test_a_configuration_that_is_none_is_told(data: bytes) -> None:
    with pytest.raises(ParamError, match=r"config.json of net holds no JSON object. One was expected"):
        parsed(data, "config.json", "net")


def test_labels_are_counted_and_left_out() -> None:
    labels = {str(number): f"class {number}" for number in range(21_841)}
    config = {"model_type": "vit", "id2label": labels, "label2id": {}, "pretrained_cfg": {"label_names": []}}
    kept = without_labels(config)
    assert kept == {"model_type": "vit", "num_labels": 21_841, "pretrained_cfg": {}}
    assert knows_palace({"698": "palace"})
    assert not knows_palace(labels)
    assert not knows_palace(None)
    assert library_of({"model_type": "timm_wrapper", "architecture": "resnet18"}, "net") == "transformers"


def test_what_would_run_code_or_read_another_file_is_left_out_also_within() -> None:
    within = {"model_type": "blip_vision_model", "auto_map": {"AutoModel": "other/repository--modeling.X"}}
    config = {"model_type": "blip", "vision_config": within, "model_args": {"checkpoint_path": "any.pth"}}
    assert of_transformers._plain(config) == {
        "model_type": "blip",
        "vision_config": {"model_type": "blip_vision_model"},
    }


def test_the_librarys_own_answer_for_a_number_counts() -> None:
    """ConvNeXt's old files say 224: its shorter side; ViT's mean a square."""
    old = {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}
    found = prepared({**of_transformers.defaults(old), **old}, {})
    assert (found.input_px, found.crop_fraction, found.is_squeezed) == (224, 0.875, False)
    vit = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224}
    assert prepared({**of_transformers.defaults(vit), **vit}, {}).is_squeezed
