from __future__ import annotations

import numpy as np
import pytest

from headstart.auditing import alignment, copies
from tests.support.images import photograph

PICTURES = np.stack([photograph(number, 96, 96) for number in range(6)])


@pytest.mark.parametrize("kind", copies.KINDS)
def test_a_copy_is_much_more_like_its_original_than_another_picture(kind: str) -> None:
    draw = np.random.default_rng(0)
    made = np.stack([copies.KINDS[kind](pixels, draw) for pixels in PICTURES])
    own = alignment.correlation(alignment.grey(PICTURES), alignment.grey(made))
    others = alignment.correlation(alignment.grey(PICTURES), alignment.grey(np.roll(made, 1, axis=0)))
    assert own.min() > 0.85
    assert others.max() < own.min()


def test_it_is_the_normalised_cross_correlation_of_the_best_place() -> None:
    """Held to the definition, place by place, for one scale without mirroring."""
    random = np.random.default_rng(0)
    whole, part = random.random((1, 16, 16)).astype(np.float32), random.random((1, 16, 16)).astype(np.float32)
    found = alignment._within(whole, part, (0.5,))[0]
    small = part[0].reshape(8, 2, 8, 2).mean((1, 3))
    places = [
        float(np.corrcoef(whole[0, top : top + 8, left : left + 8].ravel(), turned.ravel())[0, 1])
        for top in range(9)
        for left in range(9)
        for turned in (small, small[:, ::-1])
    ]
    assert found == pytest.approx(max(places), abs=1e-4)


def test_a_picture_without_contrast_is_like_nothing() -> None:
    flat = np.full((1, 96, 96, 3), 128, np.uint8)
    assert alignment.correlation(alignment.grey(flat), alignment.grey(PICTURES[:1]))[0] < 0.1
    assert alignment.correlation(alignment.grey(flat), alignment.grey(flat))[0] < 0.1


def test_no_pairs_give_no_correlations() -> None:
    assert alignment.correlation(np.zeros((0, 48, 48)), np.zeros((0, 48, 48))).shape == (0,)


def test_a_pair_has_the_same_value_whatever_is_compared_with_it() -> None:
    one = alignment.grey(np.stack([photograph(number, 64, 64) for number in range(140)]))
    other = alignment.grey(np.stack([photograph(number, 64, 64)[4:58, 6:60] for number in range(140)]))
    whole = alignment.correlation(one, other)
    for part in (slice(1), slice(1, 4), slice(5, 21), slice(21, 52), slice(40, 140), slice(137, 140)):
        assert np.array_equal(alignment.correlation(one[part], other[part]), whole[part])
