from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from headstart.evaluation import slices
from headstart.evaluation.slices import Slice


def table(*facts: tuple[str, np.ndarray]) -> tuple[pl.DataFrame, list[str]]:
    n_images = len(facts[0][1])
    image_ids = [f"{number:064x}" for number in range(n_images)]
    rows = [(image_ids[row], name, str(value)) for name, values in facts for row, value in enumerate(values)]
    return pl.DataFrame(rows, ["image_id", "slice", "value"], orient="row"), image_ids


def alone(n_images: int) -> np.ndarray:
    return np.arange(n_images).astype(str)


def found(right: np.ndarray, *facts: tuple[str, np.ndarray], groups: np.ndarray | None = None) -> list[Slice]:
    told, image_ids = table(*facts)
    return slices.slices(told, image_ids, right, alone(len(right)) if groups is None else groups)


@pytest.mark.parametrize(
    ("wrong", "n", "others", "n_others"), [(3, 10, 4, 90), (0, 5, 3, 9), (8, 8, 0, 40), (5, 9, 5, 9)]
)
def test_fishers_test_is_scipys(wrong: int, n: int, others: int, n_others: int) -> None:
    counts = [[wrong, n - wrong], [others, n_others - others]]
    assert slices.fisher(wrong, n, others, n_others) == pytest.approx(
        stats.fisher_exact(counts, alternative="greater").pvalue
    )


def test_a_camera_that_is_worse_is_marked_and_told() -> None:
    camera = np.array(["front"] * 100 + ["rear"] * 50)
    right = np.array([True] * 97 + [False] * 3 + [True] * 35 + [False] * 15)
    told = found(right, ("camera", camera))
    assert [(each.value, each.is_worse, each.n_images) for each in told] == [("rear", True, 50), ("front", False, 100)]
    rear = told[0]
    assert (rear.accuracy, rear.others) == (0.7, 0.97)
    assert rear.accuracy_low < 0.7 < rear.accuracy_high
    assert slices.warning(told) == (
        "1 of 2 slices are worse than the others by more than chance (camera rear: 70.0% of 50 images, others 97.0%)"
    )
    assert slices.warning(found(np.ones(150, bool), ("camera", camera))) == ""


def test_chance_marks_a_slice_in_at_most_one_of_twenty_sets_however_many_are_looked_at() -> None:
    random = np.random.default_rng(0)
    n_marked = 0
    for _ in range(300):
        right = random.random(300) < 0.9
        facts = [(f"fact {number}", random.integers(0, 6, 300)) for number in range(5)]
        n_marked += any(each.is_worse for each in found(right, *facts))
    assert n_marked <= stats.binom.ppf(0.99, 300, slices.LEVEL)


def test_images_of_one_burst_count_once() -> None:
    camera = np.array(["front"] * 60 + ["rear"] * 60)
    right = np.array([True] * 60 + [False] * 12 + [True] * 48)
    groups = np.array([f"f{n // 12}" for n in range(60)] + [f"r{n // 12}" for n in range(60)])
    assert found(right, ("camera", camera))[0].is_worse
    grouped = found(right, ("camera", camera), groups=groups)
    assert not any(each.is_worse for each in grouped)
    assert grouped[0].n_groups == 5
    assert grouped[0].accuracy_low < found(right, ("camera", camera))[0].accuracy_low


def test_slices_with_few_images_are_shown_and_not_compared() -> None:
    told = found(np.array([False] * 4 + [True] * 40), ("site", np.array(["Oslo"] * 4 + ["Rome"] * 40)))
    assert [(each.value, each.p_value, each.is_worse) for each in told] == [
        ("Oslo", None, False),
        ("Rome", None, False),
    ]


def test_images_that_lack_a_fact_or_are_not_held_out_have_no_part() -> None:
    told, image_ids = table(("site", np.array(["Oslo"] * 10 + ["Rome"] * 10)))
    some = slices.slices(told, image_ids[:15], np.ones(15, bool), alone(15))
    assert {each.value: each.n_images for each in some} == {"Oslo": 10, "Rome": 5}
    assert slices.slices(told.clear(), image_ids, np.ones(20, bool), alone(20)) == []


def test_what_is_written_is_read(tmp_path: Path) -> None:
    told = found(np.ones(20, bool), ("site", np.array(["Oslo"] * 10 + ["Rome"] * 10)))
    slices.write(tmp_path, told)
    assert slices.read(tmp_path) == told


def test_one_burst_among_single_images_makes_no_slice_worse() -> None:
    camera = np.array(["front"] * 60 + ["rear"] * 60)
    right = np.array([True] * 60 + [False] * 40 + [True] * 20)
    groups = np.array([f"f{n}" for n in range(60)] + ["burst"] * 40 + [f"r{n}" for n in range(20)])
    rear = found(right, ("camera", camera), groups=groups)[0]
    assert (rear.value, rear.n_groups, rear.is_worse) == ("rear", 21, False)
    assert rear.accuracy_low < 0.05 and rear.accuracy_high > 0.8
