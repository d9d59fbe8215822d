"""The contents of artifacts/validation: counts of what `validate` found, and the files that it set aside."""

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
    """The fields of summary.json."""

    form: str  # of the data, in words, such as 'class folders'
    n_files: int
    n_images: int  # usable ones
    n_quarantined: int
    n_classes: int
    n_groups: int
    images_per_class: dict[str, int]
    formats: dict[str, int]
    data_sha256: Digest  # `tables.data_digest`

    @classmethod
    def of(cls, layout: Layout) -> ValidationSummary:
        """Return the summary; CheckError if `validate` has not written it."""
        return cls.read(layout.validation / _RECORD, _STAGE)


def quarantined(layout: Layout) -> list[tuple[str, str]]:
    """Return the path of every file that was set aside, and the reason."""
    return list(read_csv(layout.validation / _QUARANTINE, _STAGE).iter_rows())


def write(folder: Path, summary: ValidationSummary, quarantine: list[tuple[str, str]]) -> None:
    """Write the whole folder; on failure it is unchanged."""
    with replacing_folder(folder) as beside:
        write_csv(beside / _QUARANTINE, pl.DataFrame(quarantine, ["path", "reason"], orient="row"))
        summary.write(beside / _RECORD)
