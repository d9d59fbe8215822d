"""The tables that stages exchange. Pandera checks a table when it is written, and a seal in the file records that.

The seal is in the metadata of the parquet file: the SHA-256 of the file with zeros in place of the seal. If it matches,
the file is the one that was checked, and a reader needs neither another check nor pandera. A file without a seal comes
from elsewhere and is checked when it is read.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from headstart.base.errors import CheckError, DataError, count_and_name
from headstart.base.files import existing, replacing

if TYPE_CHECKING:
    import pandera.polars as pa

SPLIT_NAMES = ("train", "val", "test")
_SEAL, _TABLE = "headstart.sha256", "headstart.table"
_ZEROS = b"0" * 64
# The bytes in parquet's footer: the key, the type and the length of the value, the value.
_SEALED = re.compile(re.escape(_SEAL).encode() + rb"\x18@([0-9a-f]{64})")


@dataclass(frozen=True)
class Table:
    """The name and the columns of a table; `rules` builds pandera's columns, with their checks, only when needed."""

    name: str
    columns: tuple[str, ...]
    rules: Callable[[Any], dict[str, pa.Column]]  # takes the module pandera.polars

    @property
    def seal(self) -> str:
        """The table's name and columns, stored beside the seal."""
        return f"{self.name}: {', '.join(self.columns)}"


@cache
def schema(table: Table) -> pa.DataFrameSchema:
    """Return pandera's schema of a table."""
    import pandera.polars as pa

    return pa.DataFrameSchema(table.rules(pa), strict=True, ordered=True, name=table.name)


def check(table: pl.DataFrame, kind: Table, error: type[Exception] = DataError) -> pl.DataFrame:
    """Return `table` if it fits the schema; else raise `error` with the count and the first offenders."""
    from pandera.errors import SchemaErrors

    try:
        schema(kind).validate(table, lazy=True)
    except SchemaErrors as failed:
        cases = failed.failure_cases
        shown = count_and_name(
            f"{case['column'] or 'table'}: {case['check']}, got {case['failure_case']!r}"
            for case in cases.head(4).iter_rows(named=True)
        )
        raise error(f"the table '{kind.name}' breaks {len(cases)} rules of its schema ({shown})") from None
    return table


def write(path: Path, table: pl.DataFrame, kind: Table) -> None:
    """Check `table` and write it as sealed parquet; the same table always gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {_SEAL: _ZEROS.decode(), _TABLE: kind.seal}
    check(table, kind).write_parquet(buffer, compression="zstd", statistics=False, metadata=metadata)
    data = bytearray(buffer.getvalue())
    place = _place_of_seal(data)
    assert place is not None
    data[place] = hashlib.sha256(data).hexdigest().encode()
    with replacing(path) as beside:
        beside.write_bytes(data)


def read(path: Path, kind: Table, stage: str) -> pl.DataFrame:
    """Return the table at `path`; CheckError, naming the stage that makes it, if it is missing, damaged or invalid."""
    data = existing(path, stage).read_bytes()
    to_do = f"Run `dvc repro --force {stage}`."
    place = _place_of_seal(data)
    is_damaged = _TABLE.encode() in data if place is None else _digest_without(data, place) != data[place]
    if is_damaged:
        raise CheckError(f"{path} is damaged: its bytes have changed since they were written. {to_do}")
    try:
        table = pl.read_parquet(data)
        if place is not None and pl.read_parquet_metadata(io.BytesIO(data)).get(_TABLE) == kind.seal:
            return table
        return check(table, kind, CheckError)
    except (pl.exceptions.PolarsError, CheckError) as error:
        raise CheckError(f"{path} cannot be read: {error}. {to_do}") from None


def data_digest(manifest: pl.DataFrame) -> str:
    """Return the SHA-256 over the sorted (image_id, label, group) rows: it identifies the data, not the file names."""
    rows = sorted(manifest.select("image_id", "label", "group").iter_rows())
    return hashlib.sha256("\n".join("\t".join(row) for row in rows).encode()).hexdigest()


def _place_of_seal(data: bytes | bytearray) -> slice | None:
    found = list(_SEALED.finditer(data))
    return slice(*found[-1].span(1)) if found else None


def _digest_without(data: bytes, place: slice) -> bytes:
    sha256 = hashlib.sha256(memoryview(data)[: place.start])
    sha256.update(_ZEROS)
    sha256.update(memoryview(data)[place.stop :])
    return sha256.hexdigest().encode()


# The columns of each table


def _image_id(pa: Any) -> Any:
    return pa.Column(pl.String, pa.Check.str_matches(r"^[0-9a-f]{64}$"), unique=True)


def _text(pa: Any, **options: object) -> Any:
    return pa.Column(pl.String, pa.Check.str_length(min_value=1), **options)


def _probability(pa: Any) -> Any:
    return pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0 + 1e-6))


def _mass(pa: Any) -> Any:
    return pa.Column(pl.Float64, pa.Check.in_range(0.0, 1.0))  # of all classes more probable than the image's own


def _manifest(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),  # SHA-256 of the file's bytes
        "path": _text(pa, unique=True),  # relative to data.root (or the manifest's folder), separated by /
        "label": _text(pa),
        "group": _text(pa),  # image_id if the data have no groups
        "given_split": pa.Column(pl.String, pa.Check.isin(SPLIT_NAMES), nullable=True),
        "format": _text(pa),
        "width_px": pa.Column(pl.Int32, pa.Check.gt(0)),  # after EXIF rotation
        "height_px": pa.Column(pl.Int32, pa.Check.gt(0)),
        "n_bytes": pa.Column(pl.Int64, pa.Check.gt(0)),
        "copy_in_train": pa.Column(pl.Boolean),  # of a held-out image: the given train held the same bytes
    }


def _unlabelled(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),
        "path": _text(pa, unique=True),  # relative to data.unlabelled (or the manifest's folder)
        "label": _text(pa, nullable=True),  # that the manifest gives; nothing is fitted to it
    }


def _slices(pa: Any) -> dict[str, Any]:
    return {
        "image_id": pa.Column(pl.String, pa.Check.str_matches(r"^[0-9a-f]{64}$")),
        "slice": _text(pa),  # a further column of the manifest, or a level of folders, such as camera
        "value": _text(pa),
    }


def _splits(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),
        "path": _text(pa, unique=True),
        "label": _text(pa),
        "group": _text(pa),
        "split": pa.Column(pl.String, pa.Check.isin(SPLIT_NAMES)),
    }


def _validation(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),  # in the split val
        "label": _text(pa),
        "frozen_log_loss": pa.Column(pl.Float64, pa.Check.ge(0)),  # in nats, of the head fitted on train alone
        "tuned_log_loss": pa.Column(pl.Float64, pa.Check.ge(0)),
        "frozen_correct": pa.Column(pl.Boolean),
        "tuned_correct": pa.Column(pl.Boolean),
        "tuned_probability": _probability(pa),  # of the class that it predicts
        "tuned_mass_above": _mass(pa),
    }


def _out_of_fold(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),  # in the split train or val
        "correct": pa.Column(pl.Boolean),
        "probability": _probability(pa),  # of the predicted class, out of fold
        "mass_above": _mass(pa),
        "probabilities": pa.Column(pl.List(pl.Float32)),  # [C], in the order of the classes
    }


def _predictions(pa: Any) -> dict[str, Any]:
    return {
        "image_id": _image_id(pa),
        "path": _text(pa, unique=True),
        "label": _text(pa),
        "predicted": _text(pa),
        "correct": pa.Column(pl.Boolean),
        "probability": _probability(pa),  # of the predicted class
        "probabilities": pa.Column(pl.List(pl.Float32)),  # [C], in the order of the classes
        "novelty": pa.Column(pl.Float32, pa.Check.in_range(0.0, 1.0)),
    }


MANIFEST = Table(
    "manifest",
    (
        *("image_id", "path", "label", "group", "given_split"),
        *("format", "width_px", "height_px", "n_bytes", "copy_in_train"),
    ),
    _manifest,
)
UNLABELLED = Table("unlabelled", ("image_id", "path", "label"), _unlabelled)
SLICES = Table("slices", ("image_id", "slice", "value"), _slices)
SPLITS = Table("splits", ("image_id", "path", "label", "group", "split"), _splits)
VALIDATION = Table(
    "validation",
    (
        "image_id",
        "label",
        "frozen_log_loss",
        "tuned_log_loss",
        "frozen_correct",
        "tuned_correct",
        "tuned_probability",
        "tuned_mass_above",
    ),
    _validation,
)
OUT_OF_FOLD = Table("out of fold", ("image_id", "correct", "probability", "mass_above", "probabilities"), _out_of_fold)
PREDICTIONS = Table(
    "predictions",
    ("image_id", "path", "label", "predicted", "correct", "probability", "probabilities", "novelty"),
    _predictions,
)
