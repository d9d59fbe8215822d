"""What an answer writes, that it can be undone, and that nothing of another process is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import reviewed
from headstart.base.errors import CheckError, DataError, ParamError
from headstart.layout import Layout
from headstart.reviewed import Decision
from headstart.reviewing import desk as desks
from headstart.reviewing import sheet
from headstart.reviewing.answers import Answer, answered
from headstart.reviewing.cases import Cases
from headstart.reviewing.desk import ChangedError, Desk
from tests.support.reviews import FOUND, PLAIN, audited, id_of

LEAK, LEAK_TOO, CONFLICT, LABEL, LABEL_TOO, ODD = range(6)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return audited(tmp_path / "project")


@pytest.fixture
def desk(layout: Layout) -> Desk:
    return Desk(Cases.of(layout), layout.reviewed)


def decided(desk: Desk) -> dict[str, tuple[str, str]]:
    return {each.path.removeprefix("photos/"): (each.decision, each.label) for each in desk.decisions().values()}


def open_cases(desk: Desk) -> list[int]:
    decisions = desk.decisions()
    return [case.number for case in desk.cases.all if answered(case, decisions) is None]


def test_what_matters_most_comes_first(desk: Desk) -> None:
    assert [case.finding.kind for case in desk.cases.all] == ["leak", "leak", "conflict", "label", "label", "odd"]
    assert [case.finding.severity for case in desk.cases.all][LABEL:] == ["high", "low", "high"]


def test_each_kind_is_accepted_in_its_own_way(desk: Desk) -> None:
    desk.decide(LABEL_TOO, Answer("accept"))
    desk.decide(ODD, Answer("accept"))
    assert decided(desk) == {"bees/2.png": ("change", "ants"), "bees/0.png": ("drop", "")}
    desk.decide(LEAK, Answer("accept"))
    grouped = [each for each in desk.decisions().values() if each.group]
    assert sorted(each.path for each in grouped) == [f"photos/ants/{number}.png" for number in range(3)]
    assert len({each.group for each in grouped}) == 1
    assert open_cases(desk) == [CONFLICT, LABEL]


def test_one_answer_does_not_undo_what_another_said_of_the_same_image(desk: Desk) -> None:
    """The image of LABEL is the one that both leaks are compared with."""
    desk.decide(LABEL, Answer("accept"))
    desk.decide(LEAK, Answer("accept"))
    assert decided(desk)["ants/1.png"] == ("change", "bees")
    desk.decide(LABEL, Answer("keep"))
    assert open_cases(desk) == [CONFLICT, LABEL_TOO, ODD]
    assert desk.decisions()[desk.cases.all[LABEL].finding.image_id].group


def test_steps_are_undone_one_by_one_to_the_very_bytes(desk: Desk, layout: Layout) -> None:
    layout.reviewed.write_text(reviewed.EMPTY)
    states = [layout.reviewed.read_bytes()]
    for number, answer in ((LEAK, Answer("accept")), (LABEL, Answer("label", "bees")), (LABEL, Answer("drop"))):
        desk.decide(number, answer)
        states.append(layout.reviewed.read_bytes())
    assert len(set(states)) == 4
    for state, number in zip(states[-2::-1], (LABEL, LABEL, LEAK), strict=True):
        done = desk.undo()
        assert done is not None and done.number == number
        assert layout.reviewed.read_bytes() == state
    assert desk.undo() is None


def test_a_decision_of_another_process_is_neither_lost_nor_overwritten(desk: Desk, layout: Layout) -> None:
    finding = desk.cases.all[ODD].finding
    reviewed.add(layout.reviewed, [Decision(finding.image_id, finding.path, "keep")])
    with pytest.raises(ChangedError, match="was decided elsewhere meanwhile"):
        desk.decide(ODD, Answer("drop"), {finding.image_id: None})
    assert decided(desk) == {"bees/0.png": ("keep", "")}
    desk.decide(LABEL, Answer("accept"))
    with reviewed.changing(layout.reviewed) as decisions:
        decisions[desk.cases.all[LABEL].finding.image_id] = Decision(
            desk.cases.all[LABEL].finding.image_id, "photos/ants/1.png", "drop"
        )
    with pytest.raises(ChangedError, match="It stays as it is now"):
        desk.undo()
    assert decided(desk)["ants/1.png"] == ("drop", "")


def test_the_other_picture_may_be_the_wrong_one(desk: Desk) -> None:
    desk.decide(CONFLICT, Answer("label other", "bees"))
    assert decided(desk) == {"ants/3.png": ("change", "bees")}
    assert CONFLICT not in open_cases(desk)
    desk.decide(CONFLICT, Answer("forget"))
    assert decided(desk) == {}
    desk.decide(LEAK, Answer("drop other"))
    assert decided(desk) == {"ants/1.png": ("drop", "")}
    assert open_cases(desk) == [CONFLICT, LABEL_TOO, ODD]


def test_a_misspelt_class_is_refused_unless_it_is_meant(desk: Desk) -> None:
    with pytest.raises(DataError, match=r"'beees' is no class so far\. Did you mean 'bees'\?"):
        desk.decide(LABEL, Answer("label", "beees"))
    assert decided(desk) == {}
    desk.decide(LABEL, Answer("label", "wasps"), may_be_new=True)
    assert decided(desk) == {"ants/1.png": ("change", "wasps")}


def test_all_leaks_at_once_leave_what_was_decided(desk: Desk, layout: Layout) -> None:
    desk.decide(LEAK_TOO, Answer("keep"))
    done = desks.accept_leaks(desk.cases, layout.reviewed)
    assert (done.n_groups, done.n_images, done.n_left) == (1, 2, 1)
    assert decided(desk)["ants/2.png"] == ("keep", "")
    assert desks.accept_leaks(desk.cases, layout.reviewed).n_images == 0


def test_proposed_groups_become_groups(desk: Desk, layout: Layout) -> None:
    assert desks.accept_groups(desk.cases, layout.reviewed).n_images == 2
    assert {each.path: each.group[:7] for each in desk.decisions().values()} == {
        "photos/bees/0.png": "series ",
        "photos/bees/1.png": "series ",
    }


def test_a_table_that_is_read_back_unchanged_changes_nothing(desk: Desk, layout: Layout, tmp_path: Path) -> None:
    desk.decide(LEAK, Answer("accept"))
    desk.decide(LABEL_TOO, Answer("keep"))
    desk.decide(CONFLICT, Answer("label other", "bees"))
    before = layout.reviewed.read_bytes()
    sheet.write(tmp_path / "t.csv", desk.cases, desk.decisions())
    assert sheet.read(tmp_path / "t.csv", desk.cases, layout.reviewed) == (0, 0)
    assert layout.reviewed.read_bytes() == before
    with pytest.raises(ParamError, match="exists, and may hold decisions"):
        sheet.write(tmp_path / "t.csv", desk.cases, desk.decisions())


def filled(file: Path, cells: dict[int, str]) -> None:
    """Fill in `decision,new_label` of some lines, as a spreadsheet would; it also writes semicolons."""
    rows = reviewed.cells(file, sheet.COLUMNS, ())
    table = [
        list((values | dict(zip(("decision", "new_label"), cells.get(at, ",").split(","), strict=True))).values())
        if at in cells
        else list(values.values())
        for at, (_, values) in enumerate(rows)
    ]
    file.write_text(reviewed.spreadsheet(sheet.COLUMNS, table).replace(",", ";"))


def test_what_is_filled_in_is_decided(desk: Desk, layout: Layout, tmp_path: Path) -> None:
    desk.decide(ODD, Answer("keep"))
    sheet.write(tmp_path / "t.csv", desk.cases, desk.decisions())
    filled(tmp_path / "t.csv", {LEAK: "accept,", LABEL: ",bees", LABEL_TOO: "Keep,", ODD: ","})
    assert sheet.read(tmp_path / "t.csv", desk.cases, layout.reviewed) == (4, 0)
    assert decided(desk) == {
        "ants/0.png": ("change", ""),
        "ants/1.png": ("change", "bees"),
        "ants/2.png": ("change", ""),
        "bees/2.png": ("keep", ""),
    }


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({ODD: "dorp,"}, "t.csv, line 7: decision is 'dorp'. Did you mean 'drop'?"),
        ({LABEL: "label,beees"}, "t.csv, line 5: 'beees' is no class so far. Did you mean 'bees'?"),
        ({LABEL: "keep,bees"}, "t.csv, line 5: new_label is 'bees' beside the decision keep"),
        ({LABEL: "label,"}, "t.csv, line 5: no label is given"),
    ],
)
def test_a_line_that_is_not_clear_is_told_and_nothing_is_written(
    desk: Desk, layout: Layout, tmp_path: Path, cells: dict[int, str], said: str
) -> None:
    sheet.write(tmp_path / "t.csv", desk.cases, desk.decisions())
    filled(tmp_path / "t.csv", {LEAK: "accept,", **cells})
    with pytest.raises(DataError) as raised:
        sheet.read(tmp_path / "t.csv", desk.cases, layout.reviewed)
    assert said in str(raised.value)
    assert decided(desk) == {}


def test_a_table_does_not_overwrite_what_was_decided_since(desk: Desk, layout: Layout, tmp_path: Path) -> None:
    sheet.write(tmp_path / "t.csv", desk.cases, desk.decisions())
    filled(tmp_path / "t.csv", {ODD: "drop,"})
    desk.decide(ODD, Answer("keep"))
    with pytest.raises(
        DataError, match=r"1 images were decided otherwise since t.csv was written \(photos/bees/0.png\)"
    ):
        sheet.read(tmp_path / "t.csv", desk.cases, layout.reviewed)
    assert decided(desk) == {"bees/0.png": ("keep", "")}


def test_the_list_shows_no_control_characters_of_a_path(tmp_path: Path) -> None:
    path = "photos/ants/\x1b[31m\n=1.png"
    layout = audited(
        tmp_path / "project",
        {**PLAIN, path: ("ants", "train", None, "")},
        [*FOUND, ("odd", path, None, None, None, 3.0)],
    )
    cases = Cases.of(layout)
    told = "\n".join(sheet.table(cases, {}, with_decided=False))
    assert "\x1b" not in told and "\\x1b[31m\\n=1.png" in told
    assert len(told.splitlines()) == 1 + len(cases.all)


def test_findings_about_images_that_are_gone_are_left_out_and_counted(layout: Layout) -> None:
    from headstart.base import tables

    gone = id_of(layout, "photos/bees/0.png")
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    tables.write(layout.splits, splits.filter(splits["image_id"] != gone), tables.SPLITS)
    cases = Cases.of(layout)
    assert (len(cases.all), cases.n_gone) == (5, 1)


def test_without_an_audit_the_way_to_one_is_told(layout: Layout) -> None:
    from headstart.auditing import folder

    folder.write_off(layout.audit)
    with pytest.raises(CheckError, match=r"audit\.enabled is false"):
        Cases.of(layout)


def test_a_small_class_keeps_a_group_for_each_split(tmp_path: Path) -> None:
    rows = {path: row for path, row in PLAIN.items() if path != "photos/ants/4.png"}
    layout = audited(tmp_path, rows)
    done = desks.accept_leaks(Cases.of(layout), layout.reviewed)
    assert (done.n_images, done.n_small) == (0, 3)
    assert not reviewed.read(layout.reviewed)


def test_what_was_decided_and_is_no_finding_any_more_is_in_the_whole_list(desk: Desk) -> None:
    earlier = [
        reviewed.Decision("a" * 64, "photos/ants/gone.png", "drop"),
        reviewed.Decision("b" * 64, "photos/ants/right.png", "keep"),
        reviewed.Decision("c" * 64, "photos/bees/other.png", "change", "ants", "burst"),
    ]
    known = {each.image_id: each for each in earlier}
    *_, drop, keep, change = sheet.table(desk.cases, known, with_decided=True)
    assert drop.split() == ["photos/ants/gone.png", "by", "an", "earlier", "audit", "dropped"]
    assert keep.split()[-2:] == ["audit", "kept"]
    assert change.endswith("  changed, group burst")
    assert "ants   " in change
    assert not any("earlier" in line for line in sheet.table(desk.cases, known, with_decided=False))
