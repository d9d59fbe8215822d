"""A manifest, .csv or .parquet: its columns as text, and what is wrong with its values."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from headstart.base.errors import DataError, count_and_name, counted, did_you_mean
from headstart.base.tables import SPLIT_NAMES

COLUMNS = ("path", "label", "split", "group")
_LONGEST_LABEL = 255  # as the name of a folder
_PARQUET_S = 300  # five million rows take five
_READS_PARQUET = """
import sys, polars
try:
    polars.read_parquet(sys.argv[1]).write_ipc(sys.argv[2])
except BaseException as error:
    print((str(error).splitlines() or [""])[0][:150])
    sys.exit(1)
"""


def read_manifest(
    path: Path, shown: str, needed: Sequence[str] = COLUMNS[:2], parameter: str = "data.root"
) -> pl.DataFrame:
    """Return the columns of a manifest that are used, as text, without blank lines.

    DataError, which names the manifest `shown`, where it cannot be read or lacks a column of `needed`.
    """
    try:
        data = path.read_bytes()
        is_csv = path.suffix.lower() == ".csv"
        table = pl.read_csv(io.BytesIO(data), infer_schema=False) if is_csv else _from_parquet(data)
    except (Exception, pl.exceptions.PanicException) as error:  # or whatever the file system of a URL raises
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{parameter} is '{shown}', which cannot be read as {path.suffix[1:]} ({said[:200]})."
            f" Correct the file, or set {parameter} in params.yaml."
        ) from None
    table = table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    absent = [name for name in needed if name not in table.columns]
    if absent:
        optional = "path, label, and optionally split and group were" if "label" in needed else "path was"
        raise DataError(
            f"{parameter} is '{shown}', which lacks {len(absent)} columns ({', '.join(absent)}); it has"
            f" {count_and_name(table.columns, 20) or 'none'}. {optional}"
            f" expected.{did_you_mean(absent[0], table.columns)} Rename them in the manifest."
        )
    here = [name for name in COLUMNS if name in table.columns]
    if odd := [f"{name}: {table.schema[name]}" for name in here if not _is_text(table, name)]:
        raise DataError(
            f"{len(odd)} columns of '{shown}' hold no text ({count_and_name(odd)}). Text, or numbers in place of a"
            " label or a group, was expected. Write the column as text."
        )
    kinds = table.schema.items()
    others = [name for name, kind in kinds if name not in COLUMNS and not kind.is_nested() and kind != pl.Binary]
    floats = [name for name in here[1:] if table.schema[name].is_float()]
    table = table.with_columns(pl.col(name).fill_nan(None) for name in floats)
    return table.select(pl.col(name).cast(pl.String) for name in (*here, *others))


def _from_parquet(data: bytes) -> pl.DataFrame:
    """Return the table of a parquet file. A process of its own reads it, which damaged ones can end, or hold up."""
    with TemporaryDirectory() as name:
        given, made = Path(name) / "given.parquet", Path(name) / "made.arrow"
        given.write_bytes(data)
        command = [sys.executable, "-P", "-c", _READS_PARQUET, str(given), str(made)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_PARQUET_S, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"it was not read within {_PARQUET_S} s") from None
        if done.returncode or not made.is_file():
            raise DataError(f"it is damaged: {done.stdout.decode(errors='replace').strip() or 'its reader died'}")
        return pl.read_ipc(io.BytesIO(made.read_bytes()))


def _is_text(table: pl.DataFrame, name: str) -> bool:
    kind = table.schema[name]
    is_word = kind in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    return is_word or (name in ("label", "group") and (kind.is_numeric() or kind == pl.Boolean or kind.is_temporal()))


def check_manifest(table: pl.DataFrame, shown: str) -> None:
    """Raise DataError where a value is missing, too long, unknown or repeated."""
    if not table.height:
        raise DataError(f"'{shown}' has no rows. One row per image was expected. Set data.root in params.yaml.")
    for name in ("path", "label"):
        if n_empty := table.filter(pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")).height:
            raise DataError(
                f"{n_empty} rows of '{shown}' have no {name}. One in every row was expected. Correct the manifest."
            )
    long = table.filter(pl.col("label").str.len_chars() > _LONGEST_LABEL)["label"].unique(maintain_order=True)
    if len(long):
        named = count_and_name(f"{label[:40]}... of {len(label)} characters" for label in long)
        raise DataError(
            f"{len(long)} labels in '{shown}' are longer than {_LONGEST_LABEL} characters ({named}). Names of classes"
            " were expected. Correct the manifest."
        )
    for name in ("split", "group"):
        if name in table.columns and 0 < (n_empty := table[name].null_count()) < table.height:
            raise DataError(
                f"{n_empty} of {table.height} rows of '{shown}' have no {name}. A value in all rows or in none was"
                " expected. Fill the column, or remove it."
            )
    if "split" in table.columns and (other := sorted(set(table["split"].drop_nulls().unique()) - set(SPLIT_NAMES))):
        raise DataError(
            f"the column split of '{shown}' holds {len(other)} unknown names ({count_and_name(other)})."
            " train, val and test were expected. Correct the manifest."
        )
    repeated = table.filter(pl.col("path").is_duplicated())["path"].unique(maintain_order=True)
    if len(repeated):
        raise DataError(
            f"'{shown}' names {counted(len(repeated), 'path', 'paths')} more than once"
            f" ({count_and_name(repeated.head(4).to_list())})."
            " One row per image was expected. Remove the others."
        )
