"""What decisions in reviewed.csv have changed among the images that are here, and what of it concerns held-out ones.

`validate` writes the table, `split` counts, and report and model card tell: nothing of it is read from reviewed.csv
again, which may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from headstart.base import tables
from headstart.base.records import Record
from headstart.base.tables import Table

if TYPE_CHECKING:
    from pathlib import Path

NAME, _STAGE = "decisions.parquet", "validate"


class Decided(NamedTuple):
    """A row of decisions.parquet: a usable image that was decided about, and what the data say of it."""

    image_id: str
    path: str
    is_dropped: bool
    data_label: str
    label: str
    data_group: str  # image_id where the data give none
    group: str
    data_split: str | None  # None: the data give none
    split: str | None


class HeldOut(Record):
    """How many images of the split test were changed by decisions."""

    n_dropped: int
    n_relabelled: int  # and are in test still
    n_moved_in: int
    n_moved_out: int  # to train or val
    n_unknown: int  # dropped images of which nothing says in which split they would be

    def told(self) -> str:
        """Return a sentence for who reads the figures, empty if nothing was changed."""
        counts = {
            "dropped": self.n_dropped,
            "relabelled": self.n_relabelled,
            "moved in": self.n_moved_in,
            "moved out": self.n_moved_out,
            "dropped that may have been held out": self.n_unknown,
        }
        said = ", ".join(f"{n_images} {what}" for what, n_images in counts.items() if n_images)
        if not said:
            return ""
        return (
            "held-out images were changed by decisions in reviewed.csv, after the answers to them could be seen:"
            f" {said}. Figures on them may be too good"
        )


NOTHING = HeldOut(n_dropped=0, n_relabelled=0, n_moved_in=0, n_moved_out=0, n_unknown=0)


def _rules(pa: Any) -> dict[str, Any]:
    texts = {name: pa.Column(pl.String) for name in ("image_id", "path")}
    after = {name: pa.Column(pl.String) for name in ("data_label", "label", "data_group", "group")}
    splits = {name: pa.Column(pl.String, nullable=True) for name in ("data_split", "split")}
    return {**texts, "is_dropped": pa.Column(pl.Boolean), **after, **splits}


TABLE = Table("decisions", Decided._fields, _rules)


def write(folder: Path, rows: Iterable[Decided]) -> None:
    """Write the table, sorted by path."""
    names = {name: pl.Boolean if name == "is_dropped" else pl.String for name in Decided._fields}
    ordered = sorted(rows, key=lambda each: each.path)
    tables.write(folder / NAME, pl.DataFrame(ordered, names, orient="row"), TABLE)


def read(folder: Path) -> list[Decided]:
    """Return the rows, by path; CheckError if `validate` has not written them."""
    return [Decided(*row) for row in tables.read(folder / NAME, TABLE, _STAGE).iter_rows()]


def told(rows: Iterable[Decided]) -> str:
    """Return what was decided, in a sentence; empty if nothing was."""
    counts = {"dropped": 0, "given another label": 0, "put in a group": 0, "moved to another split": 0}
    for each in rows:
        if each.is_dropped:
            counts["dropped"] += 1
            continue
        counts["given another label"] += each.label != each.data_label
        counts["put in a group"] += each.group != each.data_group
        counts["moved to another split"] += each.split != each.data_split
    said = ", ".join(f"{n_images} {what}" for what, n_images in counts.items() if n_images)
    return f"Images by decisions in reviewed.csv: {said}." if said else ""
