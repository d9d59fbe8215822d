"""artifacts/finetune: the tuned pieces, their record finetune.json, and the history of training.

Where fine-tuning is off, finetune.json says so, and history.csv, which DVC plots, has a header only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.errors import CheckError
from headstart.base.files import promised, replacing_folder, write_text
from headstart.base.records import Digest, Record
from headstart.onnx.head_folder import CalibrationRecord

if TYPE_CHECKING:
    import polars as pl

BACKBONE, HEAD, MODEL = "backbone.onnx", "head.onnx", "model.safetensors"
HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "val_log_loss",
    "val_accuracy",
    "learning_rate",
    "lowest_learning_rate",
    "n_trainable",
)
_RECORD, _HISTORY, _VALIDATION = "finetune.json", "history.csv", "validation.parquet"
_STAGE = "finetune"


class PhaseRecord(Record):
    """Consecutive epochs with the same trainable groups."""

    first: int
    last: int
    n_unfrozen: int


class TunedRecord(Record):
    """The tuned network, and how it was trained."""

    best_epoch: int
    n_epochs: int  # trained
    stopped_early: bool
    temperature: float  # folded into head.onnx; 1 where none ships
    calibration: CalibrationRecord
    val_log_loss: float  # nats an image, calibrated, of the best epoch
    val_accuracy: float
    frozen_val_log_loss: float  # of the head on the frozen backbone, fitted on train alone
    frozen_val_accuracy: float
    n_train: int
    n_val: int
    precision: str
    phases: list[PhaseRecord]
    groups: list[str]  # the backbone's layer groups, the one nearest to the input first
    made_for: Digest  # of all that the result follows from
    files: dict[str, Digest]  # beside this one


class FinetuneRecord(Record):
    """finetune.json."""

    enabled: bool
    tuned: TunedRecord | None


def read(folder: Path) -> TunedRecord | None:
    """Return what finetune.json says of the tuned network, None where fine-tuning is off."""
    return FinetuneRecord.read(folder / _RECORD, _STAGE).tuned


def write(folder: Path, record: TunedRecord | None) -> None:
    """Write finetune.json: the last, since it names the digests of the other files."""
    FinetuneRecord(enabled=record is not None, tuned=record).write(folder / _RECORD)


def write_off(folder: Path) -> None:
    """Write that fine-tuning is off. Imports only the standard library and pydantic."""
    with replacing_folder(folder) as beside:
        write_text(beside / _HISTORY, ",".join(HISTORY_COLUMNS) + "\n")
        write(beside, None)


def piece(folder: Path, name: str) -> Path:
    """Return one of the tuned pieces; CheckError unless it has the digest that finetune.json names."""
    record = read(folder)
    if record is None:
        raise CheckError(f"{folder} holds no {name}: fine-tuning was off. Run `dvc repro finetune evaluate`.")
    return promised(folder, name, record.files, _STAGE)


def history(folder: Path) -> list[dict[str, Any]]:
    """Return a `tuning.history.Epoch` a row."""
    from headstart.base.files import read_csv

    return read_csv(folder / _HISTORY, _STAGE).to_dicts()


def validation(folder: Path) -> pl.DataFrame:
    """Return `tables.VALIDATION`."""
    from headstart.base import tables

    return tables.read(folder / _VALIDATION, tables.VALIDATION, _STAGE)


def write_tables(folder: Path, history: pl.DataFrame, validation: pl.DataFrame) -> None:
    """Write history.csv and validation.parquet."""
    from headstart.base import tables
    from headstart.base.files import write_csv

    write_csv(folder / _HISTORY, history)
    tables.write(folder / _VALIDATION, validation, tables.VALIDATION)
