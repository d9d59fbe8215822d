from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.base.errors import DataError
from headstart.heads.folds import assign_folds, draw


@given(st.integers(0, 10_000), st.integers(2, 6), st.lists(st.integers(1, 6), min_size=12, max_size=30))
@settings(max_examples=30)
def test_folds_separate_no_group_and_have_every_class(seed: int, folds: int, sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 2
    assignment = assign_folds(labels, groups, folds, seed)
    assert all(len(set(assignment[groups == group])) == 1 for group in set(groups))
    assert sorted(set(assignment)) == list(range(folds))
    for fold in range(folds):
        assert set(labels[assignment == fold]) == {0, 1}


def test_fewer_folds_where_a_class_has_fewer_images() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    assert assign_folds(labels, np.arange(23), 5, 0).max() == 2


def test_a_class_of_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="a class has a single group of images") as told:
        assign_folds(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 3]), 2, 0)
    assert "Two or more were expected. Add images of it, or remove the class." in str(told.value)


def test_a_label_that_no_image_has_is_no_class() -> None:
    assert assign_folds(np.array([0, 3] * 10), np.arange(20), 5, 0).max() == 4


def test_renamed_classes_have_the_same_folds() -> None:
    labels = np.arange(400) % 4
    renamed = np.array([2, 0, 3, 1])[labels]
    assert np.array_equal(assign_folds(labels, np.arange(400), 4, 0), assign_folds(renamed, np.arange(400), 4, 0))


@given(st.integers(0, 1000), st.integers(1, 200), st.lists(st.integers(1, 9), min_size=8, max_size=40))
@settings(max_examples=40)
def test_a_part_has_whole_groups_of_every_class(seed: int, n_images: int, sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    drawn = draw(labels, groups, n_images, seed)
    assert len(drawn) <= max(n_images, sum(sorted(sizes)[-6:]))
    assert len(drawn) == len(set(drawn))
    for group in set(groups[drawn]):
        assert set(np.flatnonzero(groups == group)) <= set(drawn)
    for label in range(3):
        assert len(set(groups[drawn][labels[drawn] == label])) >= min(2, len(set(groups[labels == label])))


def test_a_smaller_part_lies_within_a_larger_one() -> None:
    labels, groups = np.arange(300) % 3, np.arange(300) // 2
    parts = [set(draw(labels, groups, n, 4)) for n in (20, 80, 200, 400)]
    assert parts[0] < parts[1] < parts[2] < parts[3] == set(range(300))


def test_a_drawn_part_has_as_many_groups_of_each_class_as_are_asked_for() -> None:
    labels = np.repeat([0, 1, 2], [900, 40, 3])
    groups = np.arange(len(labels)) // 2
    part = draw(labels, groups, 100, seed=0, least=5)
    counts = [len(set(groups[part][labels[part] == label])) for label in range(3)]
    assert counts[0] >= 5
    assert counts[1] >= 5
    assert counts[2] == len(set(groups[labels == 2]))
