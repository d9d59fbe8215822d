"""Images without labels, as the stage `unlabelled` leaves them. They have no split: no reader of splits sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from headstart.base import tables
from headstart.base.records import Record

if TYPE_CHECKING:
    from headstart.layout import Layout

STAGE = "unlabelled"
_RECORD = "unlabelled.json"


class UnlabelledRecord(Record):
    """The fields of unlabelled.json."""

    n_images: int  # usable ones, in the stores
    n_aside: int  # set aside as unusable: quarantine.csv has the reasons
    n_copies: int  # of other files with the same bytes
    n_labelled_before: int  # the same bytes as an image of data.root, which are left out here
    n_given_labels: int  # labels that the manifest gives; for evaluation alone


@dataclass(frozen=True)
class Unlabelled:
    """Images in a fixed order, with no label that anything is fitted to."""

    image_ids: Sequence[str]
    paths: Sequence[str]
    given: Sequence[str | None]  # labels of the manifest: for evaluation alone

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def where(self) -> dict[str, str]:
        """The path of each image: image_id -> path, in the same order."""
        return dict(zip(self.image_ids, self.paths, strict=True))


def read(layout: Layout) -> Unlabelled:
    """Return the images, none where there are none; CheckError if the stage has not written them."""
    if not read_record(layout).n_images:
        return Unlabelled([], [], [])
    table = tables.read(layout.of_unlabelled().manifest, tables.UNLABELLED, STAGE)
    return Unlabelled(*(table[name].to_list() for name in table.columns))


def read_record(layout: Layout) -> UnlabelledRecord:
    """Return the counts; CheckError if the stage has not written them."""
    return UnlabelledRecord.read(layout.unlabelled / _RECORD, STAGE)


def write(layout: Layout, rows: pl.DataFrame, record: UnlabelledRecord) -> None:
    """Write the table, if it has rows, and the record."""
    if len(rows):
        tables.write(layout.of_unlabelled().manifest, rows, tables.UNLABELLED)
    record.write(layout.unlabelled / _RECORD)
