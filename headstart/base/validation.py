"""The contents of artifacts/validation: counts of what `validate` found, the slices, and the files set aside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from headstart.base import changed, decisions, tables
from headstart.base.files import read_csv, replacing_folder, write_csv
from headstart.base.records import Digest, Record

if TYPE_CHECKING:
    from headstart.layout import Layout

_RECORD, _QUARANTINE, _SLICES = "summary.json", "quarantine.csv", "slices.parquet"
_STAGE = "validate"


class Aside(NamedTuple):
    """A file that was found and is not used: a row of quarantine.csv."""

    path: str
    reason: str
    # Towards validate.max_quarantined_fraction. False: no image, of a class that is dropped, or a copy under one label
    counted: bool = True


class ValidationSummary(Record):
    """The fields of summary.json."""

    form: str  # of the data, in words, such as 'class folders'
    n_files: int
    n_images: int  # usable ones
    n_quarantined: int  # that count towards validate.max_quarantined_fraction
    n_copies: int  # of usable images, with the same bytes and label
    n_dropped: int  # by a decision in reviewed.csv
    n_no_images: int  # documents, and what systems leave behind
    n_classes: int
    n_groups: int
    dropped_classes: dict[str, int]  # class -> usable images, fewer than validate.min_images
    images_per_class: dict[str, int]
    formats: dict[str, int]
    bits: int | None  # that files with 16 bits a channel use, 8..16; None: there are none
    centre_share: float  # median over images of the share of their area that the centre square has, 0..1
    data_sha256: Digest  # `tables.data_digest`

    @classmethod
    def of(cls, layout: Layout) -> ValidationSummary:
        """Return the summary; CheckError if `validate` has not written it."""
        return cls.read(layout.validation / _RECORD, _STAGE)


def quarantined(layout: Layout) -> list[tuple[str, str]]:
    """Return the path and the reason of every file that counts as unusable: no copy, and nothing that is no image."""
    table = read_csv(layout.validation / _QUARANTINE, _STAGE)
    rows = table.filter(pl.col("counted").cast(pl.String) == "true")  # an empty column has no type
    return list(rows.select("path", "reason").iter_rows())


def slices(layout: Layout) -> pl.DataFrame:
    """Return `tables.SLICES`: what is told of images beside their class."""
    return tables.read(layout.validation / _SLICES, tables.SLICES, _STAGE)


def write(
    folder: Path,
    summary: ValidationSummary,
    aside: Sequence[Aside],
    of_images: pl.DataFrame,
    decided: Sequence[decisions.Decided] = (),
) -> None:
    """Write the whole folder, with the slices of images and what was decided about them; on failure it is unchanged."""
    with replacing_folder(folder) as beside:
        tables.write(beside / _SLICES, of_images, tables.SLICES)
        write_quarantine(beside, aside)
        decisions.write(beside, decided)
        summary.write(beside / _RECORD)


def quarantine_file(layout: Layout) -> str:
    """Return the path of quarantine.csv for a message."""
    return _shown(layout.validation / _QUARANTINE, layout)


def write_quarantine(folder: Path, aside: Sequence[Aside]) -> None:
    """Write quarantine.csv, the files set aside, each with its reason."""
    write_csv(folder / _QUARANTINE, _table(aside))


def write_failed(layout: Layout, aside: Sequence[Aside]) -> str:
    """Write what a run set aside that then failed; return the file's path for a message."""
    file = layout.failed / _QUARANTINE
    write_csv(file, _table(aside))
    return _shown(file, layout)


def forget_failed(layout: Layout) -> None:
    """Remove what `write_failed` has written, and what later stages say of images that had changed."""
    (layout.failed / _QUARANTINE).unlink(missing_ok=True)
    changed.forget(layout.failed)


def _shown(file: Path, layout: Layout) -> str:
    return (file.relative_to(layout.root) if file.is_relative_to(layout.root) else file).as_posix()


def _table(aside: Sequence[Aside]) -> pl.DataFrame:
    schema = {"path": pl.String, "reason": pl.String, "counted": pl.Boolean}
    return pl.DataFrame(sorted(aside), schema, orient="row")
