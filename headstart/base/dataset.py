"""The images that stages work on, each with its split, class and group, as `split` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headstart.base import tables
from headstart.base.decisions import NOTHING, HeldOut
from headstart.base.records import Sealed

if TYPE_CHECKING:
    from headstart.layout import Layout

SPLITS = TRAIN, VAL, TEST = tables.SPLIT_NAMES


class SplitSummary(Sealed):
    """The fields of split_summary.json."""

    classes: list[str]  # in the order of label indices
    n_images: dict[str, int]  # split -> count
    images_per_class: dict[str, dict[str, int]]  # split -> class -> count
    notes: list[str]
    warnings: list[str]
    lacking: dict[str, list[str]]  # split -> classes that had no image there, before any were moved
    copies_in_train: dict[str, int]  # held-out split -> images of which the given train held a copy, now set aside
    decided: HeldOut = NOTHING  # what decisions in reviewed.csv have changed of the held-out images


@dataclass(frozen=True)
class Images:
    """Labelled images in a fixed order."""

    image_ids: Sequence[str]
    paths: Sequence[str]
    labels: np.ndarray  # int64 [N], indices of classes
    groups: np.ndarray  # str [N]; images of one group always stay together

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, rows: np.ndarray | slice) -> Images:
        """Return the images at `rows`, in that order."""
        numbers = np.arange(len(self))[rows]
        ids, paths = [self.image_ids[row] for row in numbers], [self.paths[row] for row in numbers]
        return Images(ids, paths, self.labels[rows], self.groups[rows])

    @property
    def where(self) -> dict[str, str]:
        """The path of each image: image_id -> path, in the same order."""
        return dict(zip(self.image_ids, self.paths, strict=True))

    def counts(self, n_classes: int) -> np.ndarray:
        """Return int [C]: the number of images of each class."""
        return np.bincount(self.labels, minlength=n_classes)

    def of_class(self, label: int) -> Images:
        """Return the images with this label."""
        return self[np.flatnonzero(self.labels == label)]


@dataclass(frozen=True)
class Dataset:
    """Every usable image with its split. A reader names the splits it wants, so it cannot read another by accident."""

    table: pl.DataFrame  # tables.SPLITS

    @cached_property
    def classes(self) -> list[str]:
        """The sorted class names. A label is an index of this list."""
        return sorted(set(self.table["label"]))

    def of(self, *splits: str) -> Images:
        """Return the images in these splits, sorted by image_id."""
        rows = self.table.filter(pl.col("split").is_in(splits))
        return Images(
            rows["image_id"].to_list(),
            rows["path"].to_list(),
            labels_of(rows["label"], self.classes),
            rows["group"].to_numpy(),
        )

    def digest(self, *splits: str) -> str:
        """Return the SHA-256 that identifies the images in these splits, with their classes and groups."""
        return tables.data_digest(self.table.filter(pl.col("split").is_in(splits)))


def read(layout: Layout) -> Dataset:
    """Return the images and their splits; CheckError if `split` has not written them."""
    return Dataset(tables.read(layout.splits, tables.SPLITS, "split"))


def read_summary(layout: Layout) -> SplitSummary:
    """Return the summary of the splits; CheckError if `split` has not written it."""
    return SplitSummary.read(layout.split_summary, "split")


def write(layout: Layout, table: pl.DataFrame, summary: SplitSummary) -> None:
    """Write the table and the summary that `read` and `read_summary` return."""
    tables.write(layout.splits, table, tables.SPLITS)
    summary.write(layout.split_summary)


def labels_of(names: pl.Series, classes: Sequence[str]) -> np.ndarray:
    """Return the index of each name in `classes`, int64 [N]."""
    labels: np.ndarray = names.replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    return labels.copy()  # the array that Polars returns may be read-only
