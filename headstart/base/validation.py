"""What artifacts/validation holds: counts of what `validate` has found, and what it set aside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from headstart.base.files import read_csv, replacing_folder, write_csv
from headstart.base.records import Digest, Record

if TYPE_CHECKING:
    from headstart.layout import Layout

_RECORD, _QUARANTINE = "summary.json", "quarantine.csv"
_STAGE = "validate"


class ValidationSummary(Record):
    """summary.json."""

    form: str  # in which the data were found, in words
    n_files: int
    n_images: int  # that can be used
    n_quarantined: int
    n_classes: int
    n_groups: int
    images_per_class: dict[str, int]
    formats: dict[str, int]
    data_sha256: Digest  # `tables.data_digest`

    @classmethod
    def of(cls, layout: Layout) -> ValidationSummary:
        """Return what summary.json says; CheckError if `validate` has not written it."""
        return cls.read(layout.validation / _RECORD, _STAGE)


def quarantined(layout: Layout) -> list[tuple[str, str]]:
    """Return the path and the reason of every file that was set aside."""
    return list(read_csv(layout.validation / _QUARANTINE, _STAGE).iter_rows())


def write(folder: Path, summary: ValidationSummary, quarantine: list[tuple[str, str]]) -> None:
    """Write the whole folder, or leave what was there."""
    with replacing_folder(folder) as beside:
        write_csv(beside / _QUARANTINE, pl.DataFrame(quarantine, ["path", "reason"], orient="row"))
        summary.write(beside / _RECORD)
