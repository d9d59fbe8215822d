"""audit.on_leak `move`: what it decides, and what it leaves alone."""

from __future__ import annotations

from headstart.auditing.folder import Finding
from headstart.reviewed import About, Decision
from tasks.audit import _not_kept, moved

IDS = [f"{number:064x}" for number in range(6)]
OTHERS = [f"{number:064x}" for number in range(90, 94)]  # so that the class has enough groups


def about(*given: str | None, groups: tuple[str, ...] = ()) -> dict[str, About]:
    names = groups or tuple(IDS)
    rows = zip(IDS, names, given, strict=False)
    images = {image_id: About(f"{image_id[-1]}.png", "ants", group, split) for image_id, group, split in rows}
    side = "train" if any(given) else None
    return images | {image_id: About(f"{image_id[-2:]}.png", "ants", image_id, side) for image_id in OTHERS}


def sides(decisions: dict[str, Decision]) -> set[tuple[str, str]]:
    return {(each.group, each.split) for each in decisions.values()}


def test_drawn_splits_need_a_group_alone() -> None:
    new, n_left, _ = moved(about(None, None, None), [IDS[:2]], {})
    assert set(new) == set(IDS[:2])
    assert {split for _, split in sides(new)} == {""}
    assert n_left == 0


def test_where_the_data_call_their_held_out_images_val_no_image_becomes_the_only_test() -> None:
    new, *_ = moved(about("train", "val"), [IDS[:2]], {})
    assert {split for _, split in sides(new)} == {"val"}


def test_a_val_that_is_drawn_from_the_given_train_is_no_given_split() -> None:
    new, *_ = moved(about("train", "train", "test"), [IDS[:2]], {})
    assert {split for _, split in sides(new)} == {""}


def test_a_given_group_moves_as_a_whole() -> None:
    data = about("train", "train", "test", "test", groups=("p1", "p1", "p2", "p2"))
    new, *_ = moved(data, [[IDS[0], IDS[2]]], {})
    after = {image_id: new[image_id].group if image_id in new else data[image_id].group for image_id in IDS[:4]}
    given = {image_id: (image_id in new and new[image_id].split) or data[image_id].given_split for image_id in IDS[:4]}
    assert len(set(after.values())) == 1
    assert set(given.values()) == {"test"}


def test_an_earlier_label_stays_and_its_image_moves_with_the_others() -> None:
    new, n_left, _ = moved(about(None, None), [IDS[:2]], {IDS[0]: Decision(IDS[0], "0.png", "change", "bees")})
    assert new[IDS[0]].label == "bees"
    assert len(sides(new)) == 1
    assert (len(new), n_left) == (2, 0)


def test_an_image_that_is_right_as_it_is_stays_and_that_is_counted() -> None:
    kept = {IDS[0]: Decision(IDS[0], "0.png", "keep")}
    assert moved(about(None, None), [IDS[:2]], kept) == ({}, 1, 0)
    apart = {IDS[0]: Decision(IDS[0], "0.png", "change", group=IDS[0])}
    assert moved(about(None, None), [IDS[:2]], apart) == ({}, 1, 0)


def test_what_is_decided_already_is_not_decided_again() -> None:
    data = about(None, None)
    new, *_ = moved(data, [IDS[:2]], {})
    assert moved(data, [IDS[:2]], new) == ({}, 0, 0)


def test_a_small_class_keeps_a_group_for_each_split_and_that_is_counted() -> None:
    small = {image_id: About(f"{image_id[-1]}.png", "bees", image_id, None) for image_id in IDS[:3]}
    assert moved(about() | small, [IDS[:2]], {}) == ({}, 0, 1)


def test_what_a_person_called_right_is_not_named_again() -> None:
    finding = Finding("label", IDS[0], "0.png", "train", "ants", *([None] * 6), 0.5, "low", "", "")
    assert _not_kept([finding], {IDS[0]: Decision(IDS[0], "0.png", "keep")}) == []
    assert _not_kept([finding], {IDS[0]: Decision(IDS[0], "0.png", "change", "bees")}) == [finding]
    assert _not_kept([finding], {}) == [finding]
