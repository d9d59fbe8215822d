"""The report as a person sees it: at a desk, on a phone, in the dark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from headstart.auditing import folder as auditing
from headstart.report.artefacts import Shown
from headstart.report.page import render
from headstart.report.sections.audit import Audit, Part, Row
from tests.support.browser import opened
from tests.support.images import photograph
from tests.support.reports import make
from tests.support.reviews import audited


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(make(4, 300).page(), encoding="utf-8")
    return path.as_uri()


def has_pixels(canvas: Locator) -> bool:
    """Return whether something is drawn, rather than one colour."""
    code = (
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 != 3)).size"
    )
    return bool(canvas.evaluate(code) > 10)


def largest(dialog: Locator) -> list[int]:
    """Return the side of the square that each large picture is drawn in, in pixels of the screen."""
    code = "all => all.map(each => Math.min(each.clientWidth, each.clientHeight))"
    return list(dialog.locator(".large > *").evaluate_all(code))


@pytest.mark.parametrize(("width_px", "dark"), [(1200, False), (390, True)])
def test_it_fits_the_screen_and_every_image_is_there(address: str, width_px: int, dark: bool, tmp_path: Path) -> None:
    with opened(width_px, dark=dark) as page:
        page.goto(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        images = page.locator("main img")
        assert images.count() > 10
        assert images.evaluate_all("all => all.every(each => each.complete && each.naturalWidth > 0)")
        expect(page.locator("main figure svg")).to_have_count(8)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.locator("svg").first.evaluate("svg => getComputedStyle(svg).color")
        assert (sum(map(int, background[4:-1].split(","))) < 200) is dark
        assert (sum(map(int, ink[4:-1].split(","))) > 500) is dark
        page.screenshot(path=tmp_path / "report.png", full_page=True)
    assert (tmp_path / "report.png").stat().st_size > 50_000


def test_short_class_names_stand_upright_above_the_matrix_and_long_ones_are_turned(tmp_path: Path) -> None:
    report = make(4, 300)
    for classes, mode in ((["0", "1", "22", "333"], "horizontal-tb"), (["0", "1", "22", "4444"], "vertical-rl")):
        renamed = replace(report, fails=replace(report.fails, classes=classes, held_out=[], maps=[]))
        path = tmp_path / f"{mode}.html"
        path.write_text(renamed.page(), encoding="utf-8")
        with opened() as page:
            page.goto(path.as_uri())
            head = page.locator("#confusion thead th").last
            assert head.evaluate("each => getComputedStyle(each).writingMode") == mode


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


@pytest.mark.parametrize("width_px", [1200, 390])
def test_the_heads_that_were_tried_can_be_compared(address: str, width_px: int) -> None:
    with opened(width_px) as page:
        page.goto(address)
        table = page.locator("#heads")
        expect(table.locator("tbody tr")).to_have_count(5)
        expect(table.locator("tr.chosen th")).to_contain_text("ridge · chosen")
        table.get_by_role("button", name="nested").click()
        values = "all => all.map(each => +each.dataset.value)"
        shown = table.locator("tbody tr td:nth-child(4)").evaluate_all(values)
        assert shown == sorted(shown)
        heights = table.locator("tbody tr").evaluate_all("all => all.map(each => each.clientHeight)")
        assert max(heights) < 90  # no column is so narrow that its words break into letters
        everything = page.locator("#candidates")
        expect(everything).to_be_hidden()
        page.get_by_text("All 6 candidates").click()
        expect(everything).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width_px


def test_a_mistake_opens_beside_what_it_resembles_and_closes_again(address: str) -> None:
    with opened() as page:
        page.goto(address)
        first = page.locator(".gallery li").first
        first.get_by_role("button").click()
        dialog = page.locator("dialog")
        expect(dialog).to_be_visible()
        expect(dialog.locator(".large img")).to_have_count(2)  # the image, and what the answer rests on
        expect(dialog.locator(".alike img")).to_have_count(3)
        sizes = dialog.locator(".alike img").evaluate_all(
            "all => all.map(each => [each.clientWidth, each.clientHeight])"
        )
        assert all(abs(width - height) < 2 for width, height in sizes)  # as square as the pixels are
        assert "predicted" in dialog.inner_text() and "true class" in dialog.inner_text()
        dialog.get_by_role("button", name="close").click()
        expect(dialog).to_be_hidden()


def test_pointing_at_the_map_shows_the_image(address: str) -> None:
    with opened() as page:
        page.goto(address)
        dots = page.locator(".map use[data-point]")
        expect(dots).to_have_count(300)
        rings = page.locator(".map [id$=-rings] use")
        assert 0 < rings.count() < 300  # one around each mistake
        dots.nth(7).hover(force=True)
        tip = page.locator(".tip")
        expect(tip).to_be_visible()
        assert ".png" in tip.inner_text()
        assert has_pixels(tip.locator("canvas"))
        page.mouse.move(5, 5)
        expect(tip).to_be_hidden()
        path = tip.inner_text().rpartition(" ")[2]
        dots.nth(7).click(force=True)
        expect(page.locator("#viewer .large > *")).to_be_visible()
        expect(page.locator("#viewer .words")).to_contain_text(path)
        expect(page.locator("#viewer .place")).to_have_text("8 of 300")


@pytest.mark.parametrize(("width_px", "height_px"), [(1280, 900), (390, 800)])
def test_pictures_and_plots_open_as_large_as_the_window(address: str, width_px: int, height_px: int) -> None:
    with opened(width_px, height_px) as page:
        page.goto(address)
        viewer = page.locator("#viewer")
        buttons = (".sheets .bare", "figure:not(.map) .enlarge", ".map .enlarge")
        for button in buttons:
            page.locator(button).first.click()
            assert viewer.bounding_box() == {"x": 0, "y": 0, "width": width_px, "height": height_px}
            assert largest(viewer)[0] > 0.6 * min(width_px, height_px)
            page.keyboard.press("Escape")
            expect(viewer).to_be_hidden()
        expect(page.locator("main figure svg")).to_have_count(8)  # a plot that was looked at is back in its place
        page.locator(".gallery button").first.click()
        expect(viewer.locator(".place")).to_have_text("1 of 8")
        page.keyboard.press("ArrowLeft")
        expect(viewer.locator(".place")).to_have_text("8 of 8")
        viewer.locator(".alike button").first.click()
        assert largest(viewer)[0] > 0.6 * min(width_px, height_px)
        viewer.get_by_role("button", name="back").click()
        expect(viewer.locator(".place")).to_have_text("8 of 8")


def test_a_number_of_the_confusion_matrix_opens_its_images(address: str) -> None:
    with opened() as page:
        page.goto(address)
        page.get_by_role("button", name="errors").click()  # the images go with their number
        cell = page.locator("#confusion td.miss").first
        count = int(cell.inner_text())
        label, called = cell.evaluate(
            "td => [td.parentElement.cells[0], td.closest('table').rows[0].cells[td.cellIndex]].map(th => th.innerText)"
        )
        cell.get_by_role("button").click()
        viewer = page.locator("#viewer")
        expect(viewer.locator("h3")).to_have_text(f"{count} images of {label}, predicted as {called}")
        tiles = viewer.locator(".tiles canvas")
        expect(tiles).to_have_count(count)
        assert has_pixels(tiles.first)
        viewer.locator(".tiles button").first.click()
        expect(viewer.locator(".words")).to_contain_text(label)
        expect(viewer.locator(".words")).to_contain_text(called)
        viewer.get_by_role("button", name="back").click()
        expect(tiles).to_have_count(count)
        viewer.get_by_role("button", name="close").click()
        page.locator("#confusion td.hit").first.get_by_role("button").click()
        assert viewer.locator(".tiles canvas").count() > 10


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_contents_lead_to_every_heading(address: str, width_px: int) -> None:
    with opened(width_px) as page:
        page.goto(address)
        links = page.locator(".contents a")
        named = links.evaluate_all("all => all.map(each => each.textContent)")
        assert named == page.locator("main h2, main h3").all_inner_texts()
        if width_px == 390:
            expect(links.first).to_be_hidden()
            page.get_by_text("Contents", exact=True).click()
        page.locator(".contents").get_by_text("Would more images help?").click()
        heading = page.locator("#more")
        expect(heading).to_be_in_viewport()
        top = heading.evaluate("each => each.getBoundingClientRect().top")
        bar = page.locator(".contents").evaluate("each => each.getBoundingClientRect().bottom")
        assert width_px == 1280 or top >= bar  # not below the bar
        expect(page.locator(".contents a[aria-current]")).to_have_text("Would more images help?")


def test_a_table_that_is_wider_than_a_phone_says_so_until_its_end(address: str) -> None:
    with opened(390) as page:
        page.goto(address)
        boxes = page.locator(".scroll:visible")
        fades, hinted = "box.hasAttribute('data-right')", "!box.previousElementSibling.hidden"
        code = f"box => [box.scrollWidth > box.clientWidth + 1, {fades}, {hinted}]"
        told = [boxes.nth(number).evaluate(code) for number in range(boxes.count())]
        assert all(len(set(each)) == 1 for each in told)
        assert any(is_wide for is_wide, *_ in told)
        box = page.locator(".scroll[data-right]").first
        box.evaluate("box => { box.scrollLeft = box.scrollWidth; }")
        expect(page.locator(".scroll[data-left]").first).not_to_have_attribute("data-right", "")
    with opened(1280) as page:
        page.goto(address)
        expect(page.locator(".hint:visible")).to_have_count(0)


@pytest.fixture(scope="module")
def of_many_classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("many") / "report.html"
    path.write_text(make(300, 900, n_mistakes=60).page(), encoding="utf-8")
    return path.as_uri()


def test_three_hundred_classes_are_a_short_page_and_each_can_be_found(of_many_classes: str) -> None:
    with opened(1280) as page:
        page.goto(of_many_classes)
        assert page.evaluate("document.documentElement.scrollHeight") < 12_000
        rows = page.locator("#classes tbody tr:visible")
        expect(rows).to_have_count(20)
        expect(page.get_by_text("Of 300 classes")).to_be_visible()
        first = rows.locator("th").all_inner_texts()
        page.get_by_label("search classes").first.fill("class 29")
        assert {*rows.locator("th").all_inner_texts()} == {"class 29", *(f"class 29{digit}" for digit in range(10))}
        page.get_by_label("search classes").first.fill("")
        assert rows.locator("th").all_inner_texts() == first
        page.locator("#classes").get_by_role("button", name="images").click()
        expect(rows).to_have_count(20)  # the first ones of the new order
        assert rows.locator("th").all_inner_texts() != first
        page.get_by_role("button", name="Show all 300 classes").first.click()
        expect(rows).to_have_count(300)
        page.get_by_role("button", name="Show the first 20 classes").first.click()
        expect(rows).to_have_count(20)
        page.get_by_label("search pairs").fill("class 7")
        pairs = page.locator("#pairs tbody tr:visible")
        assert all("class 7" in text for text in pairs.all_inner_texts())
        row = pairs.first
        count = int(row.locator("td").last.inner_text())
        row.get_by_role("button").click()
        expect(page.locator("#viewer .tiles canvas")).to_have_count(count)


def test_what_the_audit_shows_opens_on_a_click_with_the_names_of_both_files(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    record = auditing.read(layout.audit)
    assert record is not None
    rows = [
        Row(
            *(Shown(f"val/{name} {number}.jpg", name, photograph(number, 256, 256)) for name in ("ant", "bee")),
            None,
            suggested="bee",
            reason="nearly the same picture",
            split="val",
            other_split="test",
        )
        for number in range(2)
    ]
    report = make(4, 300)
    audit = Audit(record, [Part("audit-leak", "Nearly the same", "", rows, 2)])
    (tmp_path / "report.html").write_text(render(report.heading, [report.good, report.fails, audit]), encoding="utf-8")
    with opened() as page:
        page.goto((tmp_path / "report.html").as_uri())
        expect(page.locator(".findings li").first).to_contain_text("beside it: bee (test) val/bee 0.jpg")
        page.locator(".findings button").nth(2).click()
        dialog = page.locator("dialog")
        expect(dialog.locator(".place")).to_have_text("2 of 2")
        expect(dialog.locator(".large img")).to_have_count(2)
        assert min(largest(dialog)) > 200
        expect(dialog.locator(".words")).to_contain_text("val/bee 1.jpg")
        page.keyboard.press("Escape")
        page.locator(".gallery:not(.findings) button").first.click()
        expect(dialog.locator(".words")).to_contain_text("predicted")
