"""The images that stages work on: of which split, class and group each is. Read from what `split` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headstart.base import tables
from headstart.base.records import Record

if TYPE_CHECKING:
    from headstart.layout import Layout

SPLITS = TRAIN, VAL, TEST = tables.SPLIT_NAMES


class SplitSummary(Record):
    """split_summary.json."""

    classes: list[str]  # in the order of every label index
    n_images: dict[str, int]  # of each split
    images_per_class: dict[str, dict[str, int]]  # of each split
    notes: list[str]
    warnings: list[str]


@dataclass(frozen=True)
class Images:
    """Labelled images in a fixed order."""

    image_ids: Sequence[str]
    paths: Sequence[str]
    labels: np.ndarray  # int64 [N], an index of the classes
    groups: np.ndarray  # str [N]; images of one group are never separated

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, rows: np.ndarray | slice) -> Images:
        """Return some of them, by their numbers in the order wanted."""
        numbers = np.arange(len(self))[rows]
        ids, paths = [self.image_ids[row] for row in numbers], [self.paths[row] for row in numbers]
        return Images(ids, paths, self.labels[rows], self.groups[rows])

    @property
    def where(self) -> dict[str, str]:
        """Where the bytes of each are: image_id -> path, in the same order."""
        return dict(zip(self.image_ids, self.paths, strict=True))

    def of_class(self, label: int) -> Images:
        """Return the images of a class."""
        return self[np.flatnonzero(self.labels == label)]


@dataclass(frozen=True)
class Dataset:
    """Every usable image with its split. A reader names the splits that it wants, so no other is read by accident."""

    table: pl.DataFrame  # tables.SPLITS

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, sorted: a label's index is its place here."""
        return sorted(set(self.table["label"]))

    def of(self, *splits: str) -> Images:
        """Return the images of these splits, sorted by image_id."""
        rows = self.table.filter(pl.col("split").is_in(splits))
        return Images(
            rows["image_id"].to_list(),
            rows["path"].to_list(),
            labels_of(rows["label"], self.classes),
            rows["group"].to_numpy(),
        )


def read(layout: Layout) -> Dataset:
    """Return the images and their splits; CheckError if `split` has not written them."""
    return Dataset(tables.read(layout.splits, tables.SPLITS, "split"))


def read_summary(layout: Layout) -> SplitSummary:
    """Return what `split` says of the splits to people."""
    return SplitSummary.read(layout.split_summary, "split")


def write(layout: Layout, table: pl.DataFrame, summary: SplitSummary) -> None:
    """Write what `read` and `read_summary` return."""
    tables.write(layout.splits, table, tables.SPLITS)
    summary.write(layout.split_summary)


def labels_of(names: pl.Series, classes: Sequence[str]) -> np.ndarray:
    """Return the index of each name among `classes`, int64 [N]."""
    labels: np.ndarray = names.replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    return labels.copy()  # writable, as callers may expect of an array
