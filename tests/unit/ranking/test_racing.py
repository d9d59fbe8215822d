"""The race: growing parts, whom it drops, and that it drops nobody for nothing."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.heads.folds import assign_folds
from headstart.ranking.parts import growing
from headstart.ranking.racing import race


@given(st.integers(0, 10_000), st.integers(30, 600), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_parts_grow_keep_groups_whole_and_end_with_what_was_asked_for(seed: int, n: int, n_classes: int) -> None:
    random = np.random.default_rng(seed)
    groups = random.integers(0, n // 2, n)
    labels = groups % n_classes  # a group is of one class
    parts = growing(labels, groups, n, least=3, seed=seed)
    assert np.array_equal(parts[-1], np.arange(n))
    for part, larger in pairwise(parts):
        assert set(part) < set(larger)
    for part in parts:
        assert not set(groups[part]) & set(np.delete(groups, part))


def test_parts_are_halves_with_each_class_as_often_as_in_all() -> None:
    labels = np.repeat([0, 1], [600, 200])
    parts = growing(labels, np.arange(800), 800, least=5, seed=0)
    assert [len(part) for part in parts] == [100, 200, 400, 800]
    for part in parts:
        assert abs(Counter(labels[part].tolist())[1] / len(part) - 0.25) < 0.02


def test_a_rare_class_has_enough_groups_to_cross_validate_in_every_part() -> None:
    labels = np.repeat([0, 1], [600, 6])
    for part in growing(labels, np.arange(606), 606, least=5, seed=0):
        assert Counter(labels[part].tolist())[1] >= 5


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_that_is_second_in_its_groups_can_be_cross_validated_in_every_part(seed: int) -> None:
    groups = np.arange(400) // 2
    labels = groups % 2
    labels[1::66][:6] = 2  # the second image of six pairs
    for part in growing(labels, groups, 400, least=5, seed=seed):
        assert len(np.unique(groups[part][labels[part] == 2])) >= 5
        assert assign_folds(labels[part], groups[part], 5, seed).max() == 4


def test_parts_of_too_few_groups_are_left_out_however_many_images_they_have() -> None:
    groups = np.arange(1600) // 10
    parts = growing(groups % 2, groups, 1600, least=5, seed=0)
    assert [len(np.unique(groups[part])) for part in parts] == [80, 160]


def test_no_more_images_than_asked_for_are_looked_at() -> None:
    parts = growing(np.arange(1000) % 4, np.arange(1000), 300, least=5, seed=0)
    assert len(parts[-1]) == 300


LABELS = np.arange(800) % 2
PARTS = growing(LABELS, np.arange(800), 800, least=5, seed=0)


def raced(means: list[float], may_win: set[int] | None = None, spread: float = 1.0) -> tuple[list[bool], list[int]]:
    """Race candidates whose values are drawn around these means; return who is out, and the images each saw."""
    drawn = np.random.default_rng(1).normal(size=800)
    own = 0.2 * np.random.default_rng(2).normal(size=(len(means), 800))
    seen = [0] * len(means)

    def judge(number: int, images: np.ndarray) -> np.ndarray:
        seen[number] = max(seen[number], len(images))
        values: np.ndarray = means[number] + spread * drawn[images] + own[number, images]
        return values

    results = race(len(means), PARTS, np.arange(800), judge, may_win or set(range(len(means))))
    assert [result.n_images for result in results] == seen
    return [result.is_out for result in results], seen


def test_the_hopeless_see_few_images_and_equals_see_all() -> None:
    out, seen = raced([0.5, 2.0, 0.5, 0.51])
    assert out == [False, True, False, False]
    assert seen == [800, 100, 800, 800]


def test_whoever_may_not_win_drops_nobody_and_can_be_dropped() -> None:
    out, seen = raced([0.0, 0.5, 0.501, 3.0], may_win={1, 2})
    assert out == [False, False, False, True]
    assert seen[:3] == [800, 800, 800]


def test_a_single_candidate_wins_its_race() -> None:
    assert raced([1.0]) == ([False], [800])


def test_equals_are_seldom_dropped() -> None:
    """At 5 % for all comparisons together, of 200 races of equals few drop anybody."""
    n_dropping = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(size=(3, 800))
        results = race(3, PARTS, np.arange(800), lambda number, images, v=values: v[number, images], {0, 1, 2})  # type: ignore[misc]
        n_dropping += any(result.is_out for result in results)
    assert n_dropping <= 30  # the leader is the luckiest of three, so more than 5 %


def test_what_a_candidate_is_behind_is_paired_on_the_same_images() -> None:
    values = np.stack([np.arange(800.0), np.arange(800.0) + 1])
    results = race(2, PARTS[-1:], np.arange(800), lambda number, images: values[number, images], {0, 1})
    assert results[0].behind is None
    assert results[1].behind is not None
    assert results[1].behind.mean == pytest.approx(1)
    assert results[1].behind.standard_error == pytest.approx(0)
