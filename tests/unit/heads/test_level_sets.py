from __future__ import annotations

import pytest

from headstart.base.errors import ParamError
from headstart.heads.level_sets import LevelSet, columns_of, level_sets
from headstart.onnx.backbone_folder import LevelRecord

WIDTHS = {"one": 2, "two": 3, "three": 4, "four": 5, "last": 6}


def known(*names: str) -> list[LevelRecord]:
    """Return levels, side by side in this order."""
    starts = [sum(WIDTHS[before] for before in names[:number]) for number in range(len(names))]
    return [
        LevelRecord(name=name, start=start, width=WIDTHS[name], pooling="none")
        for name, start in zip(names, starts, strict=True)
    ]


ALL = known(*WIDTHS)


def names(wanted: str | tuple[str, ...], levels: list[LevelRecord] = ALL) -> list[tuple[str, ...]]:
    return [each.levels for each in level_sets(levels, wanted)]


def columns(found: LevelSet) -> list[int]:
    return [int(column) for column in found.columns]


def test_auto_offers_four_sets() -> None:
    assert [each.name for each in level_sets(ALL, "auto")] == ["last", "stages", "upper half + last", "stages + last"]
    assert names("auto") == [
        ("last",),
        ("one", "two", "three", "four"),
        ("three", "four", "last"),
        ("one", "two", "three", "four", "last"),
    ]


def test_a_backbone_of_few_levels_has_fewer_sets() -> None:
    assert names("auto", known("last")) == [("last",)]
    assert names("auto", known("one", "last")) == [("last",), ("one",), ("one", "last")]
    assert [each.name for each in level_sets(known("one", "last"), "auto")] == ["last", "stages", "upper half + last"]
    assert [each.name for each in level_sets(known("last"), "all")] == ["last"]


def test_a_set_may_be_named() -> None:
    assert names("last") == [("last",)]
    assert names("all") == [("one", "two", "three", "four", "last")]
    assert names(("last", "two")) == [("two", "last")]
    assert [each.name for each in level_sets(ALL, ("last", "two"))] == ["named"]


def test_a_set_has_the_columns_of_its_levels_as_they_are_stored() -> None:
    last, stages, upper, everything = level_sets(ALL, "auto")
    assert columns(last) == list(range(14, 20))
    assert columns(stages) == list(range(14))
    assert columns(upper) == list(range(5, 20))
    assert columns(everything) == list(range(20))
    assert columns(level_sets(ALL, ("last", "two"))[0]) == [2, 3, 4, *range(14, 20)]
    assert columns_of(ALL, ["four", "one"]).tolist() == [0, 1, *range(9, 14)]


def test_a_level_that_is_not_there_is_told() -> None:
    with pytest.raises(ParamError) as told:
        level_sets(ALL, ("five", "two", "six"))
    assert str(told.value) == (
        "train_head.levels names five, six, which the backbone does not have. Levels of one, two, three, four, last"
        " were expected. Set train_head.levels in params.yaml."
    )
