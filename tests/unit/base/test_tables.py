from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from headstart.base import tables
from headstart.base.errors import CheckError, DataError
from headstart.base.tables import MANIFEST, OUT_OF_FOLD, PREDICTIONS, SPLITS, VALIDATION, Table
from tests.support.images import ROOT

N = 50


def splits() -> pl.DataFrame:
    ids = [f"{number:064x}" for number in range(N)]
    return pl.DataFrame({"image_id": ids, "path": ids, "label": ["a"] * N, "group": ids, "split": ["train"] * N})


@pytest.mark.parametrize("table", [MANIFEST, OUT_OF_FOLD, PREDICTIONS, SPLITS, VALIDATION], ids=lambda each: each.name)
def test_a_table_is_declared_with_the_columns_of_its_schema(table: Table) -> None:
    assert tuple(tables.schema(table).columns) == table.columns


def test_a_table_comes_back_and_the_same_table_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tables.write(tmp_path / name, splits(), SPLITS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert tables.read(tmp_path / "one", SPLITS, "split").equals(splits())
    assert pl.read_parquet(tmp_path / "one").equals(splits())  # any reader of parquet


def test_every_flipped_bit_and_every_lost_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "splits.parquet"
    tables.write(path, splits(), SPLITS)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(CheckError, match=r"--force split"):
            tables.read(path, SPLITS, "split")
        path.write_bytes(whole[:place])
        with pytest.raises(CheckError, match=r"--force split"):
            tables.read(path, SPLITS, "split")


def test_a_table_without_a_seal_is_checked_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "splits.parquet"
    splits().write_parquet(path)
    assert tables.read(path, SPLITS, "split").equals(splits())
    splits().with_columns(split=pl.lit("target")).write_parquet(path)
    with pytest.raises(CheckError, match=r"the table 'splits' breaks 50 rules .*target.* --force split"):
        tables.read(path, SPLITS, "split")


def test_another_table_is_refused_though_its_seal_is_whole(tmp_path: Path) -> None:
    tables.write(tmp_path / "splits.parquet", splits(), SPLITS)
    with pytest.raises(CheckError, match="the table 'predictions' breaks"):
        tables.read(tmp_path / "splits.parquet", PREDICTIONS, "evaluate")


def test_what_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the table 'splits' breaks 2 rules"):
        tables.write(tmp_path / "splits.parquet", splits().rename({"split": "part"}), SPLITS)
    assert not list(tmp_path.iterdir())


def test_a_sealed_table_is_read_without_pandera(tmp_path: Path) -> None:
    tables.write(tmp_path / "splits.parquet", splits(), SPLITS)
    code = (
        "import sys; from pathlib import Path; from headstart.base import tables;"
        f"tables.read(Path({str(tmp_path / 'splits.parquet')!r}), tables.SPLITS, 'split');"
        "sys.exit('pandera' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_missing_table_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="The stage split makes it"):
        tables.read(tmp_path / "splits.parquet", SPLITS, "split")
