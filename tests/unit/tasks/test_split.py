from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.base.errors import DataError
from headstart.params import Split
from tasks.split import Image, divide, leaked, position


def settings(**changes: object) -> Split:
    values = {"method": "hash", "seed": 0, "val_fraction": 0.15, "test_fraction": 0.2, **changes}
    return Split.model_validate(values)


def images(n: int, label: str = "ants", first: int = 0) -> list[Image]:
    return [Image(f"{label}-{number}", label, None) for number in range(first, first + n)]


MANY = images(400) + images(400, "bees")

counts = st.integers(20, 120)
seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0.05, 0.4)


@given(counts, st.integers(1, 200), seeds)
def test_new_images_never_move_old_ones(n_old: int, n_new: int, seed: int) -> None:
    old = images(n_old) + images(n_old, "bees")
    new = images(n_new, first=n_old) + (images(n_new, "wasps") if n_new >= 3 else [])
    before, after = divide(old, settings(seed=seed)), divide(old + new, settings(seed=seed))
    if not before.warnings:
        assert after.splits[: len(old)] == before.splits


@given(seeds, fractions, fractions, fractions)
def test_one_fraction_never_shuffles_another(seed: int, test: float, one_val: float, other_val: float) -> None:
    one, other = (
        divide(MANY, settings(seed=seed, test_fraction=test, val_fraction=val)).splits for val in (one_val, other_val)
    )
    assert [split == "test" for split in one] == [split == "test" for split in other]
    smaller, larger = (one, other) if one_val < other_val else (other, one)
    assert all(after == "val" for before, after in zip(smaller, larger, strict=True) if before == "val")


@given(seeds, fractions, fractions, st.randoms(use_true_random=False))
def test_order_has_no_influence(seed: int, test: float, val: float, random: object) -> None:
    chosen = settings(seed=seed, test_fraction=test, val_fraction=val)
    shuffled = list(MANY)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before = dict(zip(MANY, divide(MANY, chosen).splits, strict=True))
    assert dict(zip(shuffled, divide(shuffled, chosen).splits, strict=True)) == before


@given(seeds, st.sampled_from(["hash", "stratified"]), st.lists(st.integers(1, 9), min_size=12, max_size=40))
def test_a_group_is_never_separated(seed: int, method: str, sizes: list[int]) -> None:
    grouped = [
        Image(f"g{number}", "ants" if number % 2 else "bees", None)
        for number, size in enumerate(sizes)
        for _ in range(size)
    ]
    splits = divide(grouped, settings(seed=seed, method=method)).splits
    seen: dict[str, set[str]] = {}
    for image, split in zip(grouped, splits, strict=True):
        seen.setdefault(image.group, set()).add(split)
    assert all(len(found) == 1 for found in seen.values())


@given(seeds, st.integers(3, 30), st.integers(3, 30), st.sampled_from(["hash", "stratified"]))
def test_every_class_is_in_every_split(seed: int, n_ants: int, n_bees: int, method: str) -> None:
    data = images(n_ants) + images(n_bees, "bees")
    splits = divide(data, settings(seed=seed, method=method)).splits
    assert {(image.label, split) for image, split in zip(data, splits, strict=True)} == {
        (label, split) for label in ("ants", "bees") for split in ("train", "val", "test")
    }


def test_another_seed_draws_another_split() -> None:
    assert divide(MANY, settings(seed=0)).splits != divide(MANY, settings(seed=1)).splits


def test_positions_are_pinned() -> None:
    # SHA-256 of "0:a" begins with these bytes. Should this change, so would every user's test split.
    assert position("a", 0) == 0x9DF3C5FAB8EF8FE7 / 2**64


def test_hash_fractions_come_out_about_right() -> None:
    shares = Counter(divide(MANY, settings()).splits)
    assert shares["test"] / len(MANY) == pytest.approx(0.2, abs=0.04)
    assert shares["val"] / len(MANY) == pytest.approx(0.15, abs=0.04)


def test_stratified_fractions_are_exact_in_every_class() -> None:
    data = images(100) + images(40, "bees")
    splits = divide(data, settings(method="stratified")).splits
    found = Counter((image.label, split) for image, split in zip(data, splits, strict=True))
    assert found == {
        ("ants", "train"): 65,
        ("ants", "val"): 15,
        ("ants", "test"): 20,
        ("bees", "train"): 26,
        ("bees", "val"): 6,
        ("bees", "test"): 8,
    }


def test_a_class_that_the_hash_leaves_out_gets_its_lowest_group_with_a_warning() -> None:
    few = images(3, "wasps")
    outcome = divide(MANY + few, settings())
    assert {split for image, split in zip(MANY + few, outcome.splits, strict=True) if image.label == "wasps"} == {
        "train",
        "val",
        "test",
    }
    assert any("'wasps'" in warning for warning in outcome.warnings)
    assert outcome.lacking == {"val": ["wasps"], "test": ["wasps"]}
    without = [split for image, split in zip(MANY + few, outcome.splits, strict=True) if image.label != "wasps"]
    assert without == divide(MANY, settings()).splits


@pytest.mark.parametrize("method", ["hash", "stratified"])
def test_fewer_groups_than_splits_are_refused(method: str) -> None:
    with pytest.raises(DataError) as error:
        divide(images(50) + images(2, "bees"), settings(method=method))
    assert "1 class has fewer images (or groups) than there are splits to fill (bees: 2)" in str(error.value)
    assert "Add images, drop such classes by validate.min_images in params.yaml" in str(error.value)


def given_as(split: str, data: list[Image]) -> list[Image]:
    return [image._replace(given_split=split) for image in data]


def test_given_train_val_and_test_are_kept() -> None:
    data = [
        image
        for number, split in enumerate(("train", "val", "test"))
        for image in given_as(split, images(5, first=10 * number) + images(5, "bees", first=10 * number))
    ]
    assert divide(data, settings()).splits == [image.given_split for image in data]


def test_a_given_val_without_test_is_held_out_and_validation_comes_out_of_train() -> None:
    inside = given_as("train", MANY)
    outside = given_as("val", images(30, first=900) + images(30, "bees", first=900))
    outcome = divide(inside + outside, settings())
    assert outcome.splits[len(inside) :] == ["test"] * 60
    assert set(outcome.splits[: len(inside)]) == {"train", "val"}
    assert outcome.notes == [
        "train and val are given, but no test: the given val is the held-out test set, and validation is drawn from"
        " train"
    ]


def test_a_given_test_without_val_is_kept_and_validation_comes_out_of_train() -> None:
    inside = given_as("train", MANY)
    outcome = divide(inside + given_as("test", images(9, first=900)), settings())
    assert outcome.splits[len(inside) :] == ["test"] * 9
    assert set(outcome.splits[: len(inside)]) == {"train", "val"}
    assert outcome.warnings == ["class 'bees' has no image in test"]
    assert outcome.lacking == {"test": ["bees"]}


def test_many_classes_that_a_split_lacks_make_one_warning() -> None:
    names = [f"wasps {number}" for number in range(50)]
    outcome = divide(MANY + [image for name in names for image in images(3, name)], settings())
    assert len(outcome.warnings) <= 3
    in_test = outcome.lacking["test"]
    assert len(in_test) > 3 and set(in_test) <= set(names)
    first = ", ".join(in_test[:3])
    said = next(warning for warning in outcome.warnings if "in test" in warning)
    assert said.startswith(
        f"{len(in_test)} classes had no image in test ({first}, ...): {len(in_test)} moved there from"
    )
    held_out = given_as("train", MANY) + [image for name in names for image in given_as("train", images(5, name))]
    alone = divide(held_out + given_as("test", images(9, first=900)), settings())
    assert "51 classes have no image in test (bees, wasps 0, wasps 1, ...)" in alone.warnings


def test_train_alone_is_divided_like_no_split_at_all() -> None:
    assert divide(given_as("train", MANY), settings()).splits == divide(MANY, settings()).splits


def test_a_group_in_two_given_splits_is_refused() -> None:
    torn = [Image("nest 1", "ants", "train"), Image("nest 1", "ants", "test")]
    with pytest.raises(DataError, match=r"1 groups are in more than one given split \(nest 1\)"):
        divide([*given_as("train", MANY), *torn], settings())


def test_held_out_classes_that_were_never_trained_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 class has held-out images but none in train \(Ants\)"):
        divide(given_as("train", MANY) + given_as("test", images(3, "Ants")), settings())


def test_splits_without_train_are_refused() -> None:
    with pytest.raises(DataError, match="the data give test, val, but no train"):
        divide(given_as("val", images(9)) + given_as("test", images(9, first=50)), settings())


def test_copies_across_train_and_a_given_test_are_called_leakage_with_their_number() -> None:
    """In a public set of brain scans, 88 of 394 given test images have a byte-identical twin in train."""
    copies, told = leaked(
        ["train"] * 10 + ["test"] * 4 + ["val"] * 2, [False] * 10 + [True, False, True, True, False, False]
    )
    assert copies == {"test": 3}
    assert len(told) == 1
    assert told[0].startswith(
        "leakage in the data: 3 of 4 given test images (75%) have a byte-identical copy in the given"
    )
    assert leaked(["train", "test"], [False, False]) == ({}, [])
