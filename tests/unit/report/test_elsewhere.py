"""The section of the report on images of another domain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headstart.adapting.methods import METHODS
from headstart.evaluation.elsewhere import ElsewhereRecord, LabelledRecord, ShareRecord
from headstart.evaluation.folder import Scores
from headstart.onnx.adapt_folder import AdaptRecord, TrialRecord, WayRecord
from headstart.report.page import render
from headstart.report.sections.elsewhere import Elsewhere
from tests.support.browser import opened
from tests.support.reports import make

WAYS = [
    WayRecord(method=name, score=0.5 + gain, gain=gain, standard_error=0.03 if gain else 0.0)
    for name, gain in (("none", 0.0), ("standardise", 0.21), ("coral", 0.18))
]
TRIAL = TrialRecord(choose_by="reverse", auc=0.9, p_value=0.001, ways=WAYS, n_source=1200, n_target=340)
ADAPTED = AdaptRecord(chosen="standardise", why="It is better by <chance>.", trial=TRIAL, files={})
LABELLED = LabelledRecord(
    n_images=50,
    n_others=290,
    n_other_labels=0,
    plain=ShareRecord(value=0.61, low=0.5, high=0.72),
    adapted=ShareRecord(value=0.83, low=0.74, high=0.9),
    gain=ShareRecord(value=0.22, low=0.09, high=0.35),
)


def scores() -> Scores:
    return Scores.model_validate({name: getattr(make().good.test, name) for name in Scores.model_fields})


def page(adapted: AdaptRecord = ADAPTED, labelled: LabelledRecord | None = LABELLED, ships: bool = False) -> str:
    held_out = {"plain": scores()} | ({"adapted": scores()} if adapted.is_adapted else {})
    found = ElsewhereRecord(method=adapted.chosen, ships=ships, held_out=held_out, labelled=labelled)
    return render(make().heading, [Elsewhere(adapted, found)])


def words(html: str) -> str:
    html = html[html.index('<section aria-labelledby="elsewhere">') :]
    return " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", html[: html.index("</section>")], flags=re.DOTALL).split())


def test_it_says_what_was_tried_why_one_was_taken_and_what_it_gains() -> None:
    html = page()
    told = words(html)
    assert "340 images without labels were looked at, beside 1,200 images of train and val." in told
    assert "It is better by &lt;chance&gt;." in told
    assert "standardise · chosen mean and scale of each feature as before 0.710 +0.210 0.030" in told
    assert "right +22.0 points more often (+9.0 to +35.0)" in told
    assert "The head as it is ships" in told
    assert all(
        f"{where}, {head} head" in html
        for where in ("held-out images", "images from elsewhere")
        for head in ("plain", "adapted")
    )


def test_an_adapted_head_that_ships_is_said_to_have_figures_of_other_images() -> None:
    told = words(page(ships=True))
    assert "The adapted head ships" in told and "they are of the held-out images, which are not from elsewhere" in told


def test_without_labels_no_accuracy_is_claimed() -> None:
    html = page(labelled=None)
    assert "no accuracy is known" in html and "images from elsewhere, plain head" not in html


def test_a_veto_is_told() -> None:
    none = AdaptRecord(chosen="none", why="No way is better.", trial=TRIAL, files={})
    told = words(page(none, None))
    assert "No way is better." in told and "none · chosen the head as it is" in told and "ships" not in told


def test_labels_alone_are_reported_where_nothing_was_tried() -> None:
    off = AdaptRecord(chosen="none", why="Nothing was tried: adapt.enabled is false.", trial=None, files={})
    plain = LABELLED.model_copy(update={"adapted": None, "gain": None})
    html = page(off, plain)
    assert "images from elsewhere, plain head" in html and "<table>" not in html


def test_every_way_has_its_words() -> None:
    section = Elsewhere(ADAPTED, ElsewhereRecord(method="none", ships=False, held_out={}, labelled=None))
    assert set(section.words) == set(METHODS)


@pytest.mark.parametrize(("width_px", "dark"), [(1200, False), (390, True)])
def test_it_fits_the_screen(width_px: int, dark: bool, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(), encoding="utf-8")
    with opened(width_px, dark=dark) as browser:
        browser.goto((tmp_path / "report.html").as_uri())
        assert browser.evaluate("document.documentElement.scrollWidth") <= width_px
        browser.locator("section[aria-labelledby=elsewhere]").screenshot(path=tmp_path / "section.png")
    assert (tmp_path / "section.png").stat().st_size > 10_000
