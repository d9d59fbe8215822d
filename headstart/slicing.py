"""Further facts of images, such as camera, site and date, as slices: a few groups of images for each fact."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

MAX_VALUES = 24  # of a fact; more would leave too few images for each
_FORMS_OF_DATES = (r"^\d{4}-\d{2}(-\d{2}.*)?$", r"^\d{4}[:/]\d{2}[:/]\d{2}.*$")  # ISO 8601, EXIF
_MONTH, _YEAR = 7, 4  # characters


class Facts(NamedTuple):
    """What is told of an image, by names."""

    image_id: str
    told: Sequence[tuple[str, str]]


def slices_of(images: Iterable[Facts]) -> tuple[pl.DataFrame, list[str]]:
    """Return `tables.SLICES`, and a note for each fact that makes no slices or is cut into fewer.

    Dates with too many values are cut to months or years, other numbers to quarters of the images.
    """
    by_name: dict[str, dict[str, str]] = {}
    for image_id, told in images:
        for name, value in told:
            by_name.setdefault(name, {})[image_id] = value
    rows, notes = [], []
    for name, value_of in by_name.items():
        values, note = _few(pl.Series(list(value_of.values()), dtype=pl.String))
        if note:
            notes.append(f"{name} {note}")
        if values is not None:
            rows += [(image_id, name, value) for image_id, value in zip(value_of, values, strict=True)]
    schema = {"image_id": pl.String, "slice": pl.String, "value": pl.String}
    return pl.DataFrame(rows, schema, orient="row").sort("slice", "image_id"), notes


def _few(values: pl.Series) -> tuple[pl.Series | None, str]:
    """Return the values, or fewer made of them; None if they make no slices. Also what was done, in words."""
    n_values = values.n_unique()
    if n_values < 2:
        return None, "is the same for all images, and makes no slices"
    if n_values <= MAX_VALUES:
        return values, ""
    if any(values.str.contains(form).all() for form in _FORMS_OF_DATES):
        for n_characters, word in ((_MONTH, "months"), (_YEAR, "years")):
            shorter = values.str.slice(0, n_characters)
            if 1 < shorter.n_unique() <= MAX_VALUES:
                return shorter, f"has {n_values} dates, which are cut to {word}"
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.is_finite().fill_null(value=False).all():
        ends = sorted({float(numbers.quantile(share, "lower") or 0.0) for share in (0.25, 0.5, 0.75)})
        names = [f"up to {ends[0]:g}", *(f"{low:g} to {high:g}" for low, high in itertools.pairwise(ends))]
        names.append(f"above {ends[-1]:g}")
        at = [sum(number > end for end in ends) for number in numbers]
        return pl.Series([names[index] for index in at]), f"has {n_values} numbers, which are cut to quarters"
    return None, f"has {n_values} values, more than {MAX_VALUES}, and makes no slices"
