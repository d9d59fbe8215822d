"""What was measured before is not measured again, and nobody can tell from the result."""

from __future__ import annotations

import errno
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from headstart.auditing import alignment, quality
from headstart.auditing.measured import Measured, pair_keys
from headstart.store import shards
from headstart.store.cache import Cache
from tests.support.images import photograph

MEASURED = [2.0068407, 0.6607465, 6.4379619, 0.063996]  # of four pictures together
PART = [0.9909954, 0.9946558, 0.9949072, 0.9936692]  # of each picture and a part of it
OTHERS = [0.6279163, 0.6257797, 0.4003843, 0.5324305]  # of each picture and the one before
KEYS = [sha256(bytes([number])).hexdigest() for number in range(7)]


class Measuring:
    """Counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.n_calls = 0

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        self.n_calls += 1
        self.asked += numbers.tolist()
        return np.stack([numbers / 3, -numbers], 1)


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    return Measured(Cache(tmp_path / "cache", 10**9), "f" * 64)


def test_each_is_measured_once(measured: Measured) -> None:
    first, later, nothing = Measuring(), Measuring(), Measuring()
    before = measured.rows("twice v1", 2, KEYS[:5], first)
    after = measured.rows("twice v1", 2, KEYS, later)
    again = measured.rows("twice v1", 2, KEYS[::-1], nothing)
    assert (sorted(first.asked), sorted(later.asked), nothing.asked) == ([0, 1, 2, 3, 4], [5, 6], [])
    assert after.dtype == np.float32
    assert np.array_equal(before, after[:5])
    assert np.array_equal(again, after[::-1])
    assert after[6].tolist() == [2.0, -6.0]


@pytest.mark.parametrize("other", ["twice v2", "pixels"])
def test_another_measure_or_other_pixels_are_measured_anew(measured: Measured, other: str) -> None:
    measured.rows("twice v1", 2, KEYS, Measuring())
    anew = Measuring()
    of = Measured(measured.cache, "e" * 64) if other == "pixels" else measured
    of.rows("twice v1" if other == "pixels" else other, 2, KEYS, anew)
    assert sorted(anew.asked) == list(range(7))


def test_where_nothing_can_be_kept_all_is_measured(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    of = Measured(Cache(tmp_path / "cache", 10**9), "f" * 64)
    for _ in range(2):
        anew = Measuring()
        assert of.rows("twice v1", 2, KEYS, anew)[3].tolist() == [1.0, -3.0]
        assert (anew.asked, anew.n_calls) == (list(range(7)), 1)


def test_what_cannot_be_written_is_measured_once_and_told(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_named_by_digest", full)
    anew = Measuring()
    assert measured.rows("twice v1", 2, KEYS, anew)[3].tolist() == [1.0, -3.0]
    assert (anew.asked, anew.n_calls) == (list(range(7)), 1)
    assert "some rows are not kept in the cache" in "".join(capsys.readouterr())


def test_all_that_lacks_is_measured_in_one_call_and_the_others_are_counted(measured: Measured) -> None:
    keys = [sha256(str(number).encode()).hexdigest() for number in range(2_000)]
    measured.rows("twice v1", 2, keys[:1_200], Measuring())
    anew, known = Measuring(), [0]
    measured.rows("twice v1", 2, keys, anew, lambda n: known.append(n))
    assert (anew.n_calls, len(anew.asked), sum(known)) == (1, 800, 1_200)


def test_a_damaged_file_is_measured_again(measured: Measured) -> None:
    before = measured.rows("twice v1", 2, KEYS, Measuring())
    (file,) = (measured.cache.folder).rglob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert np.array_equal(measured.rows("twice v1", 2, KEYS, Measuring()), before)


def test_the_key_of_a_pair_does_not_depend_on_its_order() -> None:
    keys = pair_keys(KEYS, np.array([[0, 1], [1, 0], [0, 2]]))
    assert keys[0] == keys[1] != keys[2]
    assert all(len(bytes.fromhex(key)) == 32 for key in keys)


def test_other_results_need_another_name() -> None:
    """Where this fails on purpose: count on in quality.NAME or alignment.NAME, and write the new results here."""
    pictures = np.stack([photograph(number, 64, 64) for number in range(4)])
    measures = np.array([quality.measure(each) for each in pictures])
    assert quality.NAME == "quality 1"
    assert measures.sum(0) == pytest.approx(MEASURED, abs=1e-6)
    small = alignment.grey(pictures)
    part = alignment.grey(np.stack([each[:56, :56] for each in pictures]))
    assert alignment.NAME == "alignment 1"
    assert alignment.correlation(small, part) == pytest.approx(PART, abs=1e-5)
    assert alignment.correlation(small, np.roll(small, 1, 0)) == pytest.approx(OTHERS, abs=1e-5)


def test_no_key_is_no_measure(measured: Measured) -> None:
    assert measured.rows("twice v1", 2, [], Measuring()).shape == (0, 2)
