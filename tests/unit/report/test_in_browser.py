"""The report as a person sees it: at a desk, on a phone, in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import opened
from tests.support.reports import make


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(make(4, 300).page(), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize(("width_px", "dark"), [(1200, False), (390, True)])
def test_it_fits_the_screen_and_every_image_is_there(address: str, width_px: int, dark: bool, tmp_path: Path) -> None:
    with opened(width_px, dark=dark) as page:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        images = page.locator("main img")
        assert images.count() > 10
        assert images.evaluate_all("all => all.every(each => each.complete && each.naturalWidth > 0)")
        assert page.locator("main figure svg").count() == 6
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.locator("svg").first.evaluate("svg => getComputedStyle(svg).color")
        assert (sum(map(int, background[4:-1].split(","))) < 200) is dark
        assert (sum(map(int, ink[4:-1].split(","))) > 500) is dark
        page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 50_000


def test_tables_and_the_confusion_matrix_can_be_sorted(address: str) -> None:
    with opened() as page:
        page.goto(address)
        table = page.locator("#classes")
        for direction in ("ascending", "descending"):
            table.get_by_role("button", name="recall").click()
            expect(table.locator("th", has_text="recall")).to_have_attribute("aria-sort", direction)
            shown = table.locator("tbody tr td:nth-child(3)").evaluate_all(
                "all => all.map(each => +each.dataset.value)"
            )
            assert shown == sorted(shown, reverse=direction == "descending")
        matrix = page.locator("#confusion")

        def counts() -> list[list[int]]:
            rows = matrix.locator("tbody tr").evaluate_all(
                "rows => rows.map(row => [...row.cells].slice(1).map(cell => +cell.textContent || 0))"
            )
            return [[int(value) for value in row] for row in rows]

        before = counts()
        page.get_by_role("button", name="errors").click()
        after = counts()
        names = matrix.locator("tbody th").all_inner_texts()
        assert matrix.locator("thead th").all_inner_texts()[1:] == names
        wrong = [sum(row) - row[number] for number, row in enumerate(after)]
        assert wrong == sorted(wrong, reverse=True)
        assert sorted(row[number] for number, row in enumerate(after)) == sorted(
            row[number] for number, row in enumerate(before)
        )
        page.get_by_role("button", name="name").click()
        assert counts() == before


def test_a_mistake_opens_beside_what_it_resembles_and_closes_again(address: str) -> None:
    with opened() as page:
        page.goto(address)
        first = page.locator(".gallery li").first
        first.get_by_role("button").click()
        dialog = page.locator("dialog")
        expect(dialog).to_be_visible()
        assert dialog.locator(".large img").count() == 2  # the image, and what the answer rests on
        assert dialog.locator(".alike img").count() == 3
        sizes = dialog.locator("img").evaluate_all("all => all.map(each => [each.clientWidth, each.clientHeight])")
        assert all(abs(width - height) < 2 for width, height in sizes)  # as square as the pixels are
        assert "called" in dialog.inner_text() or "is class" in dialog.inner_text()
        dialog.get_by_role("button", name="close").click()
        expect(dialog).to_be_hidden()


def test_pointing_at_the_map_shows_the_image(address: str) -> None:
    with opened() as page:
        page.goto(address)
        dots = page.locator(".map use[data-point]")
        assert dots.count() == 300
        dots.nth(7).hover(force=True)
        tip = page.locator(".tip")
        expect(tip).to_be_visible()
        assert ".png" in tip.inner_text()
        assert (
            tip.locator("i")
            .evaluate("each => getComputedStyle(each).backgroundImage")
            .startswith('url("data:image/jpeg')
        )
        page.mouse.move(5, 5)
        expect(tip).to_be_hidden()
