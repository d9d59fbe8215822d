from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart import reviewed
from headstart.base.errors import DataError
from headstart.reviewed import Decision

ONE, TWO = "a" * 64, "b" * 64
CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20).map(str.strip)


@given(CELLS, CELLS.filter(bool), CELLS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, path: str, label: str, group: str) -> None:
    file = tmp_path_factory.mktemp("reviewed") / "reviewed.csv"
    decisions = [Decision(ONE, path, "change", label, group), Decision(TWO, path, "drop")]
    reviewed.write(file, decisions)
    assert reviewed.read(file) == {each.image_id: each for each in decisions}
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in csv.reader(file.open(newline="")) for cell in line)


def test_no_file_and_an_empty_one_decide_nothing(tmp_path: Path) -> None:
    file = tmp_path / "reviewed.csv"
    assert reviewed.read(file) == {}
    file.write_text(reviewed.EMPTY)
    assert reviewed.read(file) == {}


def test_a_spreadsheets_file_is_read(tmp_path: Path) -> None:
    """With a byte order mark, CRLF, an empty line, and without the columns that are not needed."""
    file = tmp_path / "reviewed.csv"
    file.write_bytes(f"\ufeffimage_id,decision,note\r\n{ONE},drop,blurred\r\n,,\r\n".encode())
    assert reviewed.read(file) == {ONE: Decision(ONE, "", "drop")}


def test_new_decisions_leave_those_that_are_there(tmp_path: Path) -> None:
    file = tmp_path / "reviewed.csv"
    reviewed.write(file, [Decision(ONE, "a.png", "keep")])
    assert reviewed.add(file, [Decision(ONE, "a.png", "drop"), Decision(TWO, "b.png", "drop")]) == 1
    assert [each.decision for each in reviewed.read(file).values()] == ["keep", "drop"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"{ONE},a.png,dorp,,,", "decision is 'dorp'. Did you mean 'drop'?"),
        ("12ab,a.png,drop,,,", "image_id is '12ab'"),
        (f"{ONE},a.png,change,,,", "a label, a group or a split was expected beside `change`"),
        (f"{ONE},a.png,keep,bees,,", "nothing was expected beside `keep`"),
        (f"{ONE},a.png,change,,,tset", "split is 'tset'"),
        (f"{ONE},a.png,drop,,,\n{ONE},a.png,keep,,,", "line 3: there are two decisions about a.png"),
    ],
)
def test_a_line_that_says_nothing_clear_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "reviewed.csv"
    file.write_text(reviewed.EMPTY + line + "\n")
    with pytest.raises(DataError, match=r"reviewed\.csv") as caught:
        reviewed.read(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(("data", "said"), [(b"\xff\xfe\x00", "UTF-8"), (b"path,label\na,b\n", "no column image_id")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "reviewed.csv"
    file.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(said)):
        reviewed.read(file)
