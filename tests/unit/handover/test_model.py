"""A finished model from Python: every way to hand it an image."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.base.errors import CheckError
from headstart.handover.model import Model
from headstart.images import UnreadableError, decode
from tests.support.images import ROOT, encoded, photograph

FOLDER = ROOT / "tests" / "models" / "format-1"
PHOTO = sorted((FOLDER / "conformance").glob("*.jpg"))[0]


@pytest.fixture(scope="module")
def model() -> Model:
    return headstart.load(FOLDER)


def test_a_path_bytes_a_pillow_image_and_an_array_get_the_same_answer(model: Model) -> None:
    data = PHOTO.read_bytes()
    expected = model.predict(str(PHOTO))
    for picture in (PHOTO, data, Image.open(io.BytesIO(data)), decode(data).rgb):
        assert model.predict(picture) == expected
    assert expected.label == expected.ranked[0][0]
    assert len(expected.ranked) == len(model.classes)


def test_several_images_of_any_sizes_get_a_list(model: Model) -> None:
    pictures = [PHOTO, photograph(1, 30, 50), PHOTO.read_bytes()]
    answers = model.predict(pictures, top=1)
    assert answers == [model.predict(picture, top=1) for picture in pictures]
    assert [len(answer.ranked) for answer in answers] == [1, 1, 1]
    assert model.predict([]) == []


def test_a_stack_of_arrays_is_several_images(model: Model) -> None:
    stack = np.stack([photograph(1), photograph(2)])
    assert model.predict(stack) == [model.predict(each) for each in stack]


def test_a_pillow_image_is_turned_and_flattened_as_its_file_is(model: Model) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture = Image.fromarray(photograph(1))
    for file in (
        encoded(picture, "PNG", exif=turned),
        encoded(Image.merge("RGBA", (*picture.split(), picture.convert("L")))),
        encoded(picture.convert("L")),
        encoded(Image.fromarray((np.arange(2400, dtype=np.uint16) * 27).reshape(40, 60))),
    ):
        assert model.predict(Image.open(io.BytesIO(file))) == model.predict(file)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("nothing.jpg", r"'nothing\.jpg' cannot be read: No such file"),
        (b"nothing", r"a bytes object is no image that can be used: not an image of a known format"),
        (np.zeros((4, 4)), r"float64 \[4, 4\] is no image\. A path, .* uint8 array \[H, W, 3\] in RGB was expected"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\] is no image"),
        (7, r"int is no image"),
        ([PHOTO, b"nothing"], r"image 1: a bytes object is no image"),
    ],
)
def test_what_is_no_image_is_told(model: Model, picture: object, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        model.predict(picture)  # type: ignore[call-overload]


def test_what_is_no_run_or_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="does not exist"):
        headstart.load(tmp_path)
    with pytest.raises(CheckError, match="The folder artifacts/ of a finished project was expected"):
        headstart.features(tmp_path / "artifacts")
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        headstart.laod  # noqa: B018
