"""The tables that pass between stages, each with a pandera schema that is checked when written and when read."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandera.polars as pa
import polars as pl

from headstart.base.errors import CheckError, DataError, count_and_name
from headstart.base.files import read_parquet, write_parquet

SPLIT_NAMES = ("train", "val", "test")

_IMAGE_ID = pa.Column(pl.String, pa.Check.str_matches(r"^[0-9a-f]{64}$"), unique=True)
_LABEL = pa.Column(pl.String, pa.Check.str_length(min_value=1))
_GROUP = pa.Column(pl.String, pa.Check.str_length(min_value=1))
_PATH = pa.Column(pl.String, pa.Check.str_length(min_value=1), unique=True)
_PIXELS = pa.Column(pl.Int32, pa.Check.gt(0))

MANIFEST = pa.DataFrameSchema(
    {
        "image_id": _IMAGE_ID,  # SHA-256 of the file's bytes
        "path": _PATH,  # relative to data.root (or to the manifest's folder), with /
        "label": _LABEL,
        "group": _GROUP,  # image_id where the data names no group
        "given_split": pa.Column(pl.String, pa.Check.isin(SPLIT_NAMES), nullable=True),
        "format": pa.Column(pl.String, pa.Check.str_length(min_value=1)),
        "width_px": _PIXELS,  # upright, as EXIF has it
        "height_px": _PIXELS,
        "n_bytes": pa.Column(pl.Int64, pa.Check.gt(0)),
    },
    strict=True,
    ordered=True,
    name="manifest",
)

SPLITS = pa.DataFrameSchema(
    {
        "image_id": _IMAGE_ID,
        "path": _PATH,
        "label": _LABEL,
        "group": _GROUP,
        "split": pa.Column(pl.String, pa.Check.isin(SPLIT_NAMES)),
    },
    strict=True,
    ordered=True,
    name="splits",
)

VALIDATION = pa.DataFrameSchema(
    {
        "image_id": _IMAGE_ID,  # of the split val
        "label": _LABEL,
        "frozen_log_loss": pa.Column(pl.Float64, pa.Check.ge(0)),  # of the head fitted on train alone, in nats
        "tuned_log_loss": pa.Column(pl.Float64, pa.Check.ge(0)),
        "frozen_correct": pa.Column(pl.Boolean),
        "tuned_correct": pa.Column(pl.Boolean),
        "tuned_probability": pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0 + 1e-6)),  # of the class that it names
    },
    strict=True,
    ordered=True,
    name="validation",
)

OUT_OF_FOLD = pa.DataFrameSchema(
    {
        "image_id": _IMAGE_ID,  # of train or val
        "correct": pa.Column(pl.Boolean),
        "probability": pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0 + 1e-6)),  # of the class that was named
    },
    strict=True,
    ordered=True,
    name="out of fold",
)

PREDICTIONS = pa.DataFrameSchema(
    {
        "image_id": _IMAGE_ID,
        "path": _PATH,
        "label": _LABEL,
        "predicted": _LABEL,
        "correct": pa.Column(pl.Boolean),
        "probability": pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0 + 1e-6)),  # of the predicted class
        "probabilities": pa.Column(pl.List(pl.Float32)),  # [C], in the order of the classes
        "novelty": pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0)),
    },
    strict=True,
    ordered=True,
    name="predictions",
)


def check(table: pl.DataFrame, schema: pa.DataFrameSchema, error: type[Exception] = DataError) -> pl.DataFrame:
    """Return `table` if it fits the schema; else raise `error` with the count and the first offenders."""
    try:
        schema.validate(table, lazy=True)
    except pa.errors.SchemaErrors as failed:
        cases = failed.failure_cases
        shown = count_and_name(
            f"{case['column'] or 'table'}: {case['check']}, got {case['failure_case']!r}"
            for case in cases.head(4).iter_rows(named=True)
        )
        raise error(f"the table '{schema.name}' breaks {len(cases)} rules of its schema ({shown})") from None
    return table


def write(path: Path, table: pl.DataFrame, schema: pa.DataFrameSchema) -> None:
    """Check `table` and write it as parquet."""
    write_parquet(path, check(table, schema))


def read(path: Path, schema: pa.DataFrameSchema, stage: str) -> pl.DataFrame:
    """Return the checked table at `path`; CheckError if it is missing, broken or does not fit."""
    table = read_parquet(path, stage)
    try:
        return check(table, schema, CheckError)
    except CheckError as error:
        raise CheckError(f"{path}: {error}. Run `dvc repro --force {stage}`.") from None


def data_digest(manifest: pl.DataFrame) -> str:
    """Return the SHA-256 over the sorted (image_id, label, group) rows: the dataset, whatever its files' names."""
    rows = sorted(manifest.select("image_id", "label", "group").iter_rows())
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()
