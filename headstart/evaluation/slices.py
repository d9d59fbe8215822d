"""The accuracy of each slice of the held-out images, such as of one camera: is it worse by more than chance?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from headstart.base.intervals import exact, n_independent
from headstart.base.records import Record

MIN_GROUPS = 5  # of a slice that is compared with the others; fewer could hardly show anything
LEVEL = 0.05  # the chance that any slice is marked where none is worse
_FILE, _STAGE = "slices.json", "evaluate"
_ROUNDING = 1e-9


class Slice(Record):
    """The held-out images that have one value of a fact."""

    slice: str  # the fact, such as camera
    value: str
    n_images: int
    n_groups: int
    accuracy: float
    accuracy_low: float  # exact 95 % interval, over as many independent images as the groups count for
    accuracy_high: float
    others: float | None  # accuracy of the images with other values of the fact; None: there are none
    p_value: float | None  # that it is no worse than the others, after all looks; None: too few to compare
    is_worse: bool  # by more than chance


class _SlicesFile(Record):
    """slices.json."""

    slices: list[Slice]


def slices(table: pl.DataFrame, image_ids: Sequence[str], right: np.ndarray, groups: np.ndarray) -> list[Slice]:
    """Return each slice of the images, fact by fact, the worst first.

    `table` is `tables.SLICES`, of these images and others; `right` bool [N] and `groups` [N] are those of `image_ids`.
    A slice is compared with the images that have another value of the same fact, by Fisher's exact test, one-sided. A
    group counts as one image, and as less where groups differ in size; errors in the slice are rounded down. p-values
    are those of Holm 1979 over all slices that are compared, so that the chance of any false mark is at most `LEVEL`.
    """
    at = {image_id: row for row, image_id in enumerate(image_ids)}
    here = table.filter(pl.col("image_id").is_in(image_ids))
    found = []
    for (name,), told in here.group_by("slice", maintain_order=True):
        rows = np.array([at[image_id] for image_id in told["image_id"]])
        values = told["value"].to_numpy()
        found += [
            _slice(str(name), str(value), rows[values == value], rows[values != value], right, groups)
            for value in sorted(set(values))
        ]
    compared = sorted((each for each in found if each.p_value is not None), key=lambda each: each.p_value or 0.0)
    highest, adjusted = 0.0, {}
    for place, each in enumerate(compared):
        highest = max(highest, min(1.0, (len(compared) - place) * (each.p_value or 0.0)))
        adjusted[each.slice, each.value] = round(highest, 6)
    told_of = [
        each.model_copy(update={"p_value": p_value, "is_worse": p_value is not None and p_value < LEVEL})
        for each in found
        for p_value in [adjusted.get((each.slice, each.value))]
    ]
    return sorted(told_of, key=lambda each: (each.slice, each.accuracy, each.value))


def warning(found: Sequence[Slice]) -> str:
    """Return what a user should know of slices that are worse; empty if there is none."""
    worse = sorted((each for each in found if each.is_worse), key=lambda each: each.p_value or 0.0)
    if not worse:
        return ""
    named = "; ".join(
        f"{each.slice} {each.value}: {each.accuracy:.1%} of {each.n_images} images, others {each.others:.1%}"
        for each in worse[:3]
    )
    n_compared = sum(each.p_value is not None for each in found)
    return f"{len(worse)} of {n_compared} slices are worse than the others by more than chance ({named})"


def write(folder: Path, found: Sequence[Slice]) -> None:
    """Write slices.json."""
    _SlicesFile(slices=list(found)).write(folder / _FILE)


def read(folder: Path) -> list[Slice]:
    """Return the slices; CheckError if `evaluate` has not written them."""
    return _SlicesFile.read(folder / _FILE, _STAGE).slices


def fisher(n_wrong: int, n: int, n_wrong_others: int, n_others: int) -> float:
    """Return the chance of so many or more of all wrong answers among these `n`, if all images are alike."""
    from scipy.special import gammaln

    def log_choose(of: np.ndarray | int, some: np.ndarray | int) -> np.ndarray:
        of, some = np.asarray(of), np.asarray(some)
        chosen: np.ndarray = gammaln(of + 1.0) - gammaln(some + 1.0) - gammaln(of - some + 1.0)
        return chosen

    wrong = n_wrong + n_wrong_others
    counts = np.arange(n_wrong, min(n, wrong) + 1)
    counts = counts[wrong - counts <= n_others]
    logs = log_choose(n, counts) + log_choose(n_others, wrong - counts) - log_choose(n + n_others, wrong)
    return min(1.0, float(np.exp(logs).sum()))


def _slice(name: str, value: str, rows: np.ndarray, others: np.ndarray, right: np.ndarray, groups: np.ndarray) -> Slice:
    n_groups, n_others = len(np.unique(groups[rows])), len(np.unique(groups[others]))
    accuracy = float(right[rows].mean())
    # Images of one group are alike, and a large group weighs more: so many images that are not would tell as much.
    n_alone = n_independent(groups[rows])
    interval, of_others, p_value = exact(accuracy, n_alone), None, None
    if len(others):
        of_others = float(right[others].mean())
        n, n_of_others = math.floor(n_alone + _ROUNDING), math.floor(n_independent(groups[others]) + _ROUNDING)
        n_wrong = math.floor((1 - accuracy) * n + _ROUNDING)
        n_wrong_others = math.ceil((1 - of_others) * n_of_others - _ROUNDING)
        if min(n_groups, n_others) >= MIN_GROUPS:
            p_value = fisher(n_wrong, n, n_wrong_others, n_of_others)
    return Slice(
        slice=name,
        value=value,
        n_images=len(rows),
        n_groups=n_groups,
        accuracy=round(accuracy, 6),
        accuracy_low=round(interval.low, 6),
        accuracy_high=round(interval.high, 6),
        others=None if of_others is None else round(of_others, 6),
        p_value=p_value,
        is_worse=False,
    )
