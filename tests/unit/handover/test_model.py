"""A finished model from Python: every way to hand it an image."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.base.errors import CheckError
from headstart.handover.model import Model
from headstart.images.decoding import decode
from headstart.images.formats import UnreadableError
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
        (b"nothing", r"a bytes object is not a usable image: not an image of a known format"),
        (
            np.zeros((4, 4)),
            r"float64 \[4, 4\] is not an image\. A path, .* uint8 array \[H, W, 3\] in RGB was expected",
        ),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\] is not an image"),
        (7, r"int is not an image"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\] is not an image"),
        (Image.new("RGB", (0, 4)), r"a Image object is not a usable image: 0 x 4 pixels"),
        ("a\0b.jpg", r"is not a usable image: embedded null byte"),
        ([PHOTO, b"nothing"], r"image 1: a bytes object is not a usable image"),
    ],
)
def test_what_is_no_image_is_told(model: Model, picture: object, said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        model.predict(picture)  # type: ignore[call-overload]


def test_bytes_may_come_in_a_buffer(model: Model) -> None:
    data = PHOTO.read_bytes()
    assert model.predict(bytearray(data)) == model.predict(memoryview(data)) == model.predict(data)


@pytest.mark.parametrize("suffix", ["JPEG", "PNG"])
def test_a_pillow_image_of_a_broken_file_is_told(model: Model, suffix: str) -> None:
    data = encoded(Image.fromarray(photograph(1, 200, 200)), suffix)
    with pytest.raises(UnreadableError, match="object is not a usable image: cannot be decoded"):
        model.predict(Image.open(io.BytesIO(data[: len(data) // 2])))
    closed = Image.open(io.BytesIO(data))
    closed.close()
    with pytest.raises(UnreadableError, match="object is not a usable image: cannot be decoded"):
        model.predict(closed)


@pytest.mark.parametrize("top", [0, -1])
def test_no_answer_at_all_cannot_be_asked_for(model: Model, top: int) -> None:
    with pytest.raises(ValueError, match=rf"top is {top}\. 1 or more was expected"):
        model.predict(PHOTO, top=top)


def test_what_is_no_run_or_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="does not exist"):
        headstart.load(tmp_path)
    (tmp_path / "params.yaml").touch()
    for name in ("artifacts", ".", "artifacts_of_last_year"):
        (tmp_path / name).mkdir(exist_ok=True)
        if name != "artifacts":
            with pytest.raises(CheckError, match=r"is not the folder artifacts/ of a project, beside its params\.yaml"):
                headstart.features(tmp_path / name)
    with pytest.raises(CheckError, match="is not the folder artifacts/"):
        headstart.features(tmp_path / "nowhere" / "artifacts")
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        headstart.laod  # noqa: B018


def test_a_reader_of_the_command_line_may_have_enough() -> None:
    """`headstart predict ... | head` is no error to tell of, whichever of the two ends first."""
    command = [sys.executable, "-m", "headstart", "predict", str(FOLDER), *[str(PHOTO)] * 3000, "--json"]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout and started.stderr
    started.stdout.readline()
    started.stdout.close()
    assert started.stderr.read() == ""
    assert started.wait(60) == 1
    started.stderr.close()
