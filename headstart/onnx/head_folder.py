"""artifacts/head: head.onnx, its record head.json, and the figures that it was chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from headstart.base.files import promised, read_csv
from headstart.base.records import Digest, Record

if TYPE_CHECKING:
    import polars as pl

HEAD, CANDIDATES, LEARNING_CURVE = "head.onnx", "candidates.csv", "learning_curve.csv"
_RECORD, _OUT_OF_FOLD = "head.json", "out_of_fold.parquet"
_STAGE = "train_head"


class HeadRecord(Record):
    """head.json."""

    kind: str  # a name of heads.kinds
    words: str  # the same for people
    classes: list[str]
    strength: float
    temperature: float  # folded into head.onnx
    n_images: int  # learned from: train and val
    n_views: int  # of each, beside the image as it is
    n_folds: int
    n_cross_validated: int  # images; fewer than n_images where there are very many
    cv_accuracy: float
    cv_log_loss: float  # nats an image, calibrated
    precision: str  # that the features were computed in
    dtype: str  # that they are kept in
    made_for: Annotated[Digest, Field(description="of all that the head follows from")]
    files: dict[str, Digest]  # beside this one


def read(folder: Path) -> HeadRecord:
    """Return what head.json says; CheckError if `train_head` has not written it."""
    return HeadRecord.read(folder / _RECORD, _STAGE)


def out_of_fold(folder: Path) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD`."""
    from headstart.base import tables

    return tables.read(folder / _OUT_OF_FOLD, tables.OUT_OF_FOLD, _STAGE)


def candidates(folder: Path) -> list[dict[str, float | bool]]:
    """Return a `sweep.Candidate` a row."""
    return read_csv(promised(folder, CANDIDATES, read(folder).files, _STAGE), _STAGE).to_dicts()


def learning_curve(folder: Path) -> list[dict[str, float]]:
    """Return a `learning_curve.Point` a row."""
    return read_csv(promised(folder, LEARNING_CURVE, read(folder).files, _STAGE), _STAGE).to_dicts()


def write_out_of_fold(folder: Path, table: pl.DataFrame) -> None:
    """Write out_of_fold.parquet."""
    from headstart.base import tables

    tables.write(folder / _OUT_OF_FOLD, table, tables.OUT_OF_FOLD)


def write(folder: Path, record: HeadRecord) -> None:
    """Write head.json: the last, since it names the digests of the other files."""
    record.write(folder / _RECORD)


def piece(folder: Path) -> Path:
    """Return head.onnx; CheckError unless it has the digest that head.json names."""
    return promised(folder, HEAD, read(folder).files, _STAGE)
