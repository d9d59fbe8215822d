"""The section of the report that compares backbones."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from headstart.ranking.folder import RankingRecord
from headstart.report.page import render
from headstart.report.sections.backbones import Backbones
from tests.support.browser import opened
from tests.support.rankings import ENTRIES, ranking
from tests.support.reports import make


def page(record: RankingRecord, is_used: bool = True) -> str:
    return render(make().heading, [Backbones(record, "timm/net", is_used)])


def test_it_shows_all_candidates_their_winner_and_why_one_cannot_win() -> None:
    html = page(ranking())
    assert all(each.label in html for each in ENTRIES)
    assert "middling · wins" in html
    assert "cannot win: its licence is unknown" in html
    assert "<small>Apache-2.0, out of the race</small>" in html
    assert "1 thread of a processor, by onnxruntime 1.31.1" in html
    assert "decided nothing here" not in html


def test_a_ranking_that_nobody_asked_to_decide_says_so() -> None:
    assert "<code>backbone.name</code> in params.yaml names timm/net" in page(ranking(), is_used=False)


def test_a_ranking_without_a_winner_speaks_of_none() -> None:
    html = page(ranking(ENTRIES[0], winner=None), is_used=False)
    assert "There is no winner, for none may win (barred: its licence is unknown)." in html
    assert "takes the winner" not in html
    assert "diamond" not in html


def test_h_scores_that_tell_nothing_are_left_out() -> None:
    assert "every H-score is 3" in page(ranking())
    telling = [each.model_copy(update={"h_score": 1.9}) for each in ENTRIES]
    assert "every H-score is" not in page(ranking(*telling))
    assert ">1.90<" in page(ranking(*telling))


@pytest.mark.parametrize(("width_px", "dark"), [(1200, False), (390, True)])
def test_it_fits_the_screen(width_px: int, dark: bool, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(ranking()), encoding="utf-8")
    with opened(width_px, dark=dark) as browser:
        browser.goto((tmp_path / "report.html").as_uri())
        assert browser.evaluate("document.documentElement.scrollWidth") <= width_px
        expect(browser.locator("#ranking-table tbody tr")).to_have_count(len(ENTRIES))
        expect(browser.locator("main figure svg")).to_have_count(1)
        browser.locator("section[aria-labelledby=backbones]").screenshot(path=tmp_path / "section.png")
    assert (tmp_path / "section.png").stat().st_size > 10_000
