"""Labels that people give to images without labels: none is lost, and none is of another image or class unseen."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import polars as pl
import pytest

from headstart import params_file, reviewed
from headstart.base import unlabelled
from headstart.base.errors import DataError
from headstart.base.unlabelled import UnlabelledRecord
from headstart.choosing import decided, labelled, proposal
from headstart.choosing.proposal import Proposal, Proposed
from headstart.commands.main import main
from headstart.commands.next import cases_of
from headstart.layout import Layout
from headstart.reviewed import Decision
from headstart.reviewing.answers import Answer, answered
from headstart.reviewing.desk import Desk
from tests.support.reviews import audited


def id_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def proposed(name: str, guess: str = "ants", second: str = "bees") -> Proposed:
    return Proposed(id_of(name), f"{name}.png", guess, 0.6, second)


def holds(layout: Layout, names: str) -> None:
    """Let artifacts/unlabelled hold the images of these names, a letter each."""
    rows = pl.DataFrame(
        {"image_id": [id_of(each) for each in names], "path": [f"{each}.png" for each in names]},
        {"image_id": pl.String, "path": pl.String},
    ).with_columns(label=pl.lit(None, pl.String))
    counts = dict.fromkeys(("n_aside", "n_copies", "n_labelled_before", "n_given_labels"), 0)
    unlabelled.write(layout, rows.sort("image_id"), UnlabelledRecord(n_images=len(names), **counts))


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    root = tmp_path / "project"
    audited(root)
    values = params_file.assign(root / "params.yaml", ["data.unlabelled=new"])
    (root / "new").mkdir()
    (root / "next").mkdir()
    monkeypatch.chdir(root)
    found = Layout.of(root, values)
    holds(found, "abcd")
    return found


@pytest.fixture
def file(layout: Layout) -> Path:
    return layout.root / "next" / "decided.csv"


def listed(layout: Layout, labels: dict[str, str], name: str = "list.csv") -> str:
    """Write a list as a person fills it in, and return its path."""
    rows = [(id_of(each), f"{each}.png", "ants", "0.6", "bees", label) for each, label in labels.items()]
    (layout.root / name).write_text(reviewed.spreadsheet(proposal.COLUMNS, rows))
    return name


def new_in_labelled(layout: Layout) -> dict[str, str]:
    with (layout.root / "labelled.csv").open(newline="") as opened:
        return {row["path"]: row["label"] for row in csv.DictReader(opened) if row["path"].startswith("new/")}


@pytest.mark.parametrize(
    ("answer", "label"),
    [(Answer("keep"), "ants"), (Answer("accept"), "bees"), (Answer("label", "ants"), "ants")],
)
def test_an_answer_is_a_label_at_once_whatever_the_next_guess_is(tmp_path: Path, answer: Answer, label: str) -> None:
    desk = Desk(cases_of(Proposal([proposed("a")], ["ants", "bees"], 1, 0)), tmp_path / "decided.csv")
    desk.decide(0, answer)
    assert decided.labels_of(desk.file) == {id_of("a"): label}
    assert answered(desk.cases.all[0], desk.decisions()) == (Answer("accept") if label == "bees" else Answer("keep"))
    later = Desk(cases_of(Proposal([proposed("a", "bees", "ants")], ["ants", "bees"], 1, 0)), desk.file)
    assert decided.labels_of(later.file) == {id_of("a"): label}
    assert desk.undo() is not None
    assert decided.labels_of(desk.file) == {}


def test_labels_of_a_second_list_are_added_to_those_of_the_first(
    layout: Layout, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reviewed.write(file, [Decision(id_of("d"), "d.png", "drop"), Decision(id_of("c"), "c.png", "change", "ants")])
    assert main(["next", "--from", listed(layout, {"a": "ants", "b": ""})]) == 0
    assert main(["next", "--from", listed(layout, {"b": "bees", "c": "bees"})]) == 0
    assert new_in_labelled(layout) == {"new/a.png": "ants", "new/b.png": "bees", "new/c.png": "bees"}
    assert reviewed.read(file)[id_of("d")].decision == "drop"
    assert "1 labels replace another answer in next/decided.csv" in capsys.readouterr().out


def test_a_filled_list_is_not_overwritten_before_it_was_read_back(
    layout: Layout, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = listed(layout, {"a": "ants", "b": ""}, "next/next.csv")
    before = (layout.root / name).read_bytes()
    assert main(["next", "--list"]) == 1
    assert "next/next.csv has 1 labels that were not read back" in capsys.readouterr().err
    assert (layout.root / name).read_bytes() == before
    assert main(["next", "--from", name]) == 0
    decided.check_read_back(layout.root / name, file)


def test_labels_of_other_images_on_an_earlier_page_stop_nothing(
    layout: Layout, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After 20 labels of one folder, another was given to data.unlabelled."""
    elsewhere = [Decision(id_of(str(number)), f"{number}.png", "change", "ants") for number in range(20)]
    reviewed.write(file, elsewhere)
    done = labelled.write(layout, decided.labels_of(file))
    assert (done.n_new, done.n_elsewhere, done.file.exists()) == (0, 20, False)
    reviewed.add(file, [Decision(id_of("a"), "a.png", "change", "bees")])
    done = labelled.write(layout, decided.labels_of(file))
    assert (done.n_new, done.n_elsewhere) == (1, 20)
    assert new_in_labelled(layout) == {"new/a.png": "bees"}
    assert main(["next", "--from", listed(layout, {"b": "bees"})]) == 0
    assert "20 labels in next/decided.csv are of images that data.unlabelled does not hold" in capsys.readouterr().out


def test_a_list_of_other_images_is_refused(layout: Layout, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["next", "--from", listed(layout, {"a": "ants", "x": "ants"})]) == 1
    assert "1 labels are of images that are not in artifacts/unlabelled" in capsys.readouterr().err
    assert not file.exists()
    with pytest.raises(DataError, match="no image has a new label"):
        decided.add(layout, file, {}, may_be_new=False)


def test_a_label_that_is_no_class_needs_a_word(layout: Layout, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = listed(layout, {"a": "bee", "b": "ants"})
    assert main(["next", "--from", name]) == 1
    said = capsys.readouterr().err
    assert "1 labels are no class so far (a.png: bee). Did you mean 'bees'?" in said
    assert "--new-classes" in said
    assert not file.exists()
    assert main(["next", "--from", name, "--new-classes"]) == 0
    assert new_in_labelled(layout) == {"new/a.png": "bee", "new/b.png": "ants"}
    assert main(["next", "--from", listed(layout, {"c": "bee"})]) == 0, "it is a class from now on"
    assert main(["next", "--list", "--new-classes"]) != 0


def test_two_labels_of_one_image_in_a_list_are_told(layout: Layout) -> None:
    name = listed(layout, {"a": "ants"})
    lines = (layout.root / name).read_text().splitlines()
    (layout.root / name).write_text("\n".join([*lines, lines[1].replace(",ants\n", "") + "x"]) + "\n")
    with pytest.raises(DataError, match=r"list.csv, line 3: there is another label of a.png above"):
        proposal.read(layout.root / name)


def test_decided_images_are_not_proposed_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [id_of(each) for each in "abcd"]
    assert proposal._candidates(names, {names[1]: "dropped"}, 0) == ([0, 2, 3], 3)
    monkeypatch.setattr(proposal, "_MAX_CANDIDATES", 2)
    some, n_undecided = proposal._candidates(names, {names[1]: "dropped"}, 0)
    assert n_undecided == 3 and len(some) == 2 and 1 not in some
    with pytest.raises(DataError, match=r"all 4 images without labels are decided already, in next/decided.csv"):
        proposal.proposed(layout, "margin", 5, 0, names)
