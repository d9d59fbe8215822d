from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from headstart.auditing import quality

N = 60
RANDOM = np.random.default_rng(0)


def textured(number: int) -> np.ndarray:
    draw = np.random.default_rng(number)
    coarse = Image.fromarray(draw.integers(30, 220, (8, 8, 3), np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse, np.int16) + draw.integers(-20, 21, (96, 96, 1))
    return noisy.clip(0, 255).astype(np.uint8)


PICTURES = [textured(number) for number in range(N)]
SIZES = np.full(N, 400), np.full(N, 300) + np.arange(N)
DISTANCES = 0.3 + 0.02 * np.random.default_rng(1).normal(size=N)


def reasons(pictures: list[np.ndarray], widths: np.ndarray, distances: np.ndarray) -> dict[int, list[str]]:
    measures = np.array([quality.measure(each) for each in pictures])
    found: dict[int, list[str]] = {}
    for each in quality.odd(measures, widths, SIZES[1], distances):
        found.setdefault(each.row, []).append(each.reason)
    return found


def test_ordinary_images_are_not_odd() -> None:
    assert reasons(PICTURES, SIZES[0], DISTANCES) == {}


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.full((96, 96, 3), 128, np.uint8), "blank"),
        ((PICTURES[7] // 16).astype(np.uint8), "dark"),
        ((250 + PICTURES[7] // 64).astype(np.uint8), "bright"),
        (np.asarray(Image.fromarray(PICTURES[7]).filter(ImageFilter.GaussianBlur(6))), "blurred"),
        (np.repeat(np.repeat(RANDOM.integers(0, 255, (6, 6, 3), np.uint8), 16, 0), 16, 1), "large even areas"),
    ],
)
def test_a_damaged_image_is_named_with_the_reason(picture: np.ndarray, said: str) -> None:
    found = reasons([*PICTURES[:7], picture, *PICTURES[8:]], SIZES[0], DISTANCES)
    assert list(found) == [7]
    assert any(reason.startswith(said) for reason in found[7])


def test_an_image_of_extreme_shape_and_one_far_from_all_are_named() -> None:
    widths, distances = SIZES[0].copy(), DISTANCES.copy()
    widths[3], distances[5] = 3000, 0.9
    found = reasons(PICTURES, widths, distances)
    assert found == {3: ["of extreme shape: 3000 x 303 px"], 5: ["unlike all others: its nearest images are 0.90 away"]}


def test_a_dataset_of_dark_images_has_no_dark_ones() -> None:
    assert reasons([(each // 16).astype(np.uint8) for each in PICTURES], SIZES[0], DISTANCES) == {}


def test_a_picture_in_one_colour_is_neither_blank_nor_dark() -> None:
    red = PICTURES[7] * np.array([1, 0, 0], np.uint8)
    said = reasons([*PICTURES[:7], red, *PICTURES[8:]], SIZES[0], DISTANCES).get(7, [])
    assert not [reason for reason in said if reason.startswith(("blank", "dark"))]


def test_what_an_even_picture_may_be_is_guessed_where_hardly_a_photograph_is_so_even() -> None:
    draw = np.random.default_rng(3)
    measures = np.tile([0.5, 0.2, 5.0, 0.0], (40, 1)) + draw.normal(0, 1e-3, (40, 4))
    measures[0, 3], measures[1, 3] = 0.4, 0.7
    sides = np.full(40, 100)
    found = {each.row: each.reason for each in quality.odd(measures, sides, sides, np.full(40, 0.1))}
    assert found == {
        0: "large even areas: 40% of its pixels equal those beside and below them",
        1: "large even areas: 70% of its pixels equal those beside and below them, as in a drawing, a screenshot or a"
        " cut-out",
    }
