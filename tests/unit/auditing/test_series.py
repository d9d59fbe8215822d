from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from headstart.auditing import series
from headstart.auditing.neighbours import unit

N_SERIES, N_EACH = 20, 4
LABELS = np.repeat(np.arange(N_SERIES) % 2, N_EACH)


def features(nearer: float) -> np.ndarray:
    """Return features of series whose images share a part of this size."""
    draw = np.random.default_rng(0)
    own = nearer * np.repeat(draw.normal(size=(N_SERIES, 30)), N_EACH, axis=0)
    return unit(own + draw.normal(size=(N_SERIES * N_EACH, 30)))


def paths(pattern: str) -> list[str]:
    return [pattern.format(subject, slice_) for subject in range(N_SERIES) for slice_ in range(N_EACH)]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("scans/patient{0:03d}-slice{1:02d}.png", "the name"),
        ("scans/bird {0} ({1}).jpg", "the name without its last number"),
        ("scans/{0:05d}_left_{1}.jpg", "the name"),
    ],
)
def test_names_that_tell_subjects_apart_are_proposed(pattern: str, words: str) -> None:
    found = series.by_name(paths(pattern), LABELS, features(1.5), seed=0)
    assert found is not None
    assert found.words.startswith(words)
    names = found.names.reshape(N_SERIES, N_EACH)
    assert (names == names[:, :1]).all()
    assert len(np.unique(names)) == N_SERIES


def test_names_that_say_nothing_of_the_pictures_are_not_proposed() -> None:
    assert series.by_name(paths("scans/patient{0:03d}-slice{1:02d}.png"), LABELS, features(0.0), seed=0) is None


def test_running_numbers_are_no_series() -> None:
    assert series.by_name(paths("ants/IMG_{0:02d}{1:02d}.jpg"), LABELS, features(1.5), seed=0) is None


def test_the_images_that_names_are_judged_by_come_in_whole_series() -> None:
    """Of a hundred thousand in any order, some thousand: drawn one by one, hardly two would be of one series."""
    names = [f"scans/patient{number // 4:06d}-slice{number % 4}.png" for number in range(100_000)]
    order = np.random.default_rng(0).permutation(len(names))
    some = series.by_path([names[number] for number in order], seed=0)
    assert len(np.unique(some)) == len(some) == 4000
    _, sizes = np.unique(order[some] // 4, return_counts=True)
    assert (sizes == 4).mean() == 1
    assert series.by_path(names[:150], seed=0).tolist() == list(range(150))


def jpeg(taken: str | None, model: str = "X100") -> bytes:
    exif = Image.Exif()
    if taken:
        exif[0x0110] = model
        exif.get_ifd(0x8769)[0x9003] = taken
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_photographs_of_one_camera_seconds_apart_are_a_burst() -> None:
    first, second = (series.taken_at(jpeg(f"2024:05:01 10:00:{second}")) for second in ("07", "11"))
    assert first is not None
    assert series.is_burst(first, second)
    assert not series.is_burst(first, series.taken_at(jpeg("2024:05:01 10:00:30")))
    assert not series.is_burst(first, series.taken_at(jpeg("2024:05:01 10:00:08", "Another")))
    assert not series.is_burst(series.taken_at(jpeg(None)), first)


@pytest.mark.parametrize("taken", ["0000:00:00 00:00:00", "yesterday", ""])
def test_a_time_that_is_none_is_no_time(taken: str) -> None:
    assert series.taken_at(jpeg(taken)) is None
