"""What is said of a ranking, its table, and the front of its picture."""

from __future__ import annotations

import pytest

from headstart.ranking import folder, picture
from tests.support.rankings import ENTRIES, entry, ranking


def test_the_words_name_the_winner_its_margin_who_would_be_better_and_what_the_race_saved() -> None:
    won, missed, raced = ranking().words()
    assert won == (
        "the winner is middling: 95.0% right in cross-validation on 400 images, log loss lower than that of slower by"
        " 0.0100 ± 0.0100 (standard error), which may be chance"
    )
    assert missed == "better would be barred, but its licence is unknown"
    assert raced == "the race dropped hopeless after 100 of 400 images, and saved 29% of the time in networks"


def test_what_the_race_saved_is_the_time_of_images_that_were_not_embedded() -> None:
    assert ranking().saved == pytest.approx(300 * 40 / (400 * (30 + 10 + 20 + 5 + 40)))


def test_a_clear_margin_and_a_race_that_dropped_nobody_are_told_as_such() -> None:
    far = [ENTRIES[1], entry("slower", 0.85, 20.0)]
    won, raced = ranking(*far).words()
    assert won.endswith("by 0.1000 ± 0.0100 (standard error), which is more than chance")
    assert raced == "the race over 100, 200, 400 images dropped none, and saved nothing"
    alone, unraced = ranking(ENTRIES[1], parts=[400]).words()
    assert alone.endswith("no other that may win has seen all of them")
    assert unraced == "all saw all 400 images: there was no race"


def test_where_none_may_win_words_table_and_picture_say_so() -> None:
    record = ranking(ENTRIES[0].model_copy(update={"behind": None, "behind_se": None}), winner=None)
    won, raced = record.words()
    assert won == "there is no winner, for none may win (barred: its licence is unknown)"
    assert "dropped none" in raced
    assert folder.lines(record)[1].startswith("- barred")
    assert picture.png(record).startswith(b"\x89PNG")


def test_the_table_marks_the_winner_and_who_cannot_win() -> None:
    header, *rows = folder.lines(ranking())
    assert header.split()[:2] == ["accuracy", "95"]
    assert [row[:10].strip() for row in rows] == ["- barred", "> middling"[:10], "slower", "quick", "hopeless"]
    assert rows[0].endswith("unknown")


def test_the_front_is_of_those_that_none_beats_in_both() -> None:
    front = picture.front([*ENTRIES, entry("worse and slower", 0.90, 7.0)])
    assert [each.label for each in front] == ["quick", "middling"]


def test_the_picture_is_drawn() -> None:
    assert picture.png(ranking()).startswith(b"\x89PNG")
