"""reviewed.csv keeps what was decided, whatever labels and paths hold, and images become one group in one split."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart import reviewed
from headstart.base.errors import DataError
from headstart.reviewed import About, Decision, Grouping

IDS = [f"{number:064x}" for number in range(6)]
CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20).filter(
    str.strip
)


@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_label_and_path_come_back_as_they_were(tmp_path: Path, cells: list[tuple[str, str, str]]) -> None:
    decisions = {
        image_id: Decision(image_id, path, "change", label, group)
        for image_id, (path, label, group) in zip(IDS, cells, strict=False)
    }
    reviewed.write(tmp_path / "reviewed.csv", decisions.values())
    assert reviewed.read(tmp_path / "reviewed.csv") == decisions


@pytest.mark.parametrize("label", ["=1+1", "@SUM(A1)", "+1", "-1", "\t=1", "\n=1", "＝1+1"])
def test_no_cell_begins_a_formula(tmp_path: Path, label: str) -> None:
    reviewed.write(tmp_path / "reviewed.csv", [Decision(IDS[0], "a.png", "change", label)])
    assert f"'{label}" in (tmp_path / "reviewed.csv").read_bytes().decode()


def test_decisions_of_several_writers_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "reviewed.csv"

    def decide(number: int) -> None:
        reviewed.add(file, [Decision(f"{number:064x}", f"{number}.png", "keep")])

    writers = [threading.Thread(target=decide, args=(number,)) for number in range(24)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(reviewed.read(file)) == 24


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "reviewed.csv"
    reviewed.add(file, [Decision(IDS[0], "a.png", "keep")])
    before = file.read_bytes()
    with pytest.raises(KeyError), reviewed.changing(file) as decisions:
        decisions.clear()
        raise KeyError
    assert file.read_bytes() == before


def test_what_is_no_csv_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "reviewed.csv").write_text("image_id,decision\n" + "x" * 200_000 + ",keep\n")
    with pytest.raises(DataError, match=r"reviewed.csv, line 2: field larger than field limit"):
        reviewed.read(tmp_path / "reviewed.csv")


def images(*given_splits: str | None, groups: tuple[str, ...] = ()) -> dict[str, About]:
    names = groups or ("",) * len(given_splits)
    return {
        image_id: About(f"{image_id[-1]}.png", "ants", name or image_id, split)
        for image_id, name, split in zip(IDS, names, given_splits, strict=False)
    }


def test_images_become_one_group_and_the_drawn_splits_follow_from_it() -> None:
    joined = Grouping(images(None, None, None), {}).join(IDS[:2])
    assert {each.group for each in joined.values()} == {f"alike {IDS[0][:12]}"}
    assert {each.split for each in joined.values()} == {""}
    assert set(joined) == set(IDS[:2])


def test_given_splits_give_the_most_held_out_one() -> None:
    assert {each.split for each in Grouping(images("train", "test"), {}).join(IDS[:2]).values()} == {"test"}


def test_where_the_given_val_is_the_held_out_split_no_image_becomes_the_only_test() -> None:
    assert {each.split for each in Grouping(images("train", "val"), {}).join(IDS[:2]).values()} == {"val"}


def test_a_given_group_is_not_torn() -> None:
    data = images("train", "train", "train", "test", groups=("patient 1", "patient 1", "", "patient 2"))
    joined = Grouping(data, {}).join([IDS[0], IDS[3]])
    assert {image_id: (each.group, each.split) for image_id, each in joined.items()} == {
        IDS[0]: ("patient 1", "test"),
        IDS[1]: ("patient 1", "test"),  # it comes along
        IDS[3]: ("patient 1", "test"),
    }


def test_clusters_that_share_an_image_become_one_group() -> None:
    grouping = Grouping(images(None, None, None), {})
    first = grouping.join(IDS[:2])
    second = grouping.join(IDS[1:3])
    assert {each.group for each in (first | second).values()} == {f"alike {IDS[0][:12]}"}


def test_what_was_decided_stays() -> None:
    before = {
        IDS[0]: Decision(IDS[0], "0.png", "change", "bees"),
        IDS[1]: Decision(IDS[1], "1.png", "keep"),
        IDS[2]: Decision(IDS[2], "2.png", "drop"),
    }
    joined = Grouping(images(None, None, None, None), before).join(IDS[:4])
    assert joined[IDS[0]].label == "bees"
    assert joined[IDS[1]].label == "ants"  # that its label is right stays decided
    assert IDS[2] not in joined
    assert joined[IDS[3]].label == ""


def test_two_pictures_of_three_stay_apart_since_three_splits_need_three() -> None:
    assert not Grouping(images(None, None, None), {}).leaves_enough(IDS[:2])
    assert Grouping(images(None, None, None, None), {}).leaves_enough(IDS[:2])


def test_what_is_joined_before_counts() -> None:
    grouping = Grouping(images(None, None, None, None, None), {})
    assert grouping.leaves_enough(IDS[:2])
    grouping.join(IDS[:2])
    assert grouping.leaves_enough(IDS[2:4])
    grouping.join(IDS[2:4])
    assert not grouping.leaves_enough([IDS[0], IDS[4]])


def test_the_last_images_of_a_class_to_learn_from_stay() -> None:
    assert not Grouping(images("train", "val", "test"), {}).leaves_enough([IDS[0], IDS[2]])
    assert Grouping(images("train", "train", "val", "test"), {}).leaves_enough([IDS[0], IDS[3]])
    assert Grouping(images("train", "val", "test"), {}).leaves_enough([IDS[1], IDS[2]])


def test_where_val_is_drawn_from_train_two_have_to_stay() -> None:
    assert not Grouping(images("train", "train", "test"), {}).leaves_enough([IDS[0], IDS[2]])
    assert Grouping(images("train", "train", "train", "test"), {}).leaves_enough([IDS[0], IDS[3]])


def test_where_a_given_val_becomes_the_test_another_is_drawn_from_train() -> None:
    assert not Grouping(images("train", "train", "val"), {}).leaves_enough(IDS[:2])
    assert Grouping(images("train", "train", "train", "val"), {}).leaves_enough(IDS[:2])


def test_where_train_alone_is_given_two_are_drawn_from_it() -> None:
    assert not Grouping(images("train", "train", "train"), {}).leaves_enough(IDS[:2])
