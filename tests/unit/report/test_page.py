from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from headstart.evaluation import metrics
from headstart.heads.learning_curve import Point
from headstart.report.page import Map, Mistake, Shown, lesson, most_confused, render
from tests.support.images import ROOT, photograph
from tests.support.reports import make


class Tags(HTMLParser):
    """Checks that every tag is closed, and collects the text of headings."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_every_question_has_its_section_and_every_tag_its_end() -> None:
    tags = Tags()
    tags.feed(render(make()))
    assert tags.open == []
    assert tags.headings == [
        "How good is it, and how sure are we?",
        "Where does it fail?",
        "Can its probabilities be believed?",
        "What was it trained on?",
        "How was it chosen?",
        "How is it shipped?",
    ]


def test_the_figures_on_the_page_are_those_of_the_metrics() -> None:
    report = make()
    page = render(report)
    for name in ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "majority_accuracy"):
        assert f"{report.test[name]:.1%}" in page
    for name in ("macro_f1", "log_loss", "brier", "ece"):
        assert f"{report.test[name]:.3f}" in page
    assert "the given val is the held-out test set" in page
    assert "stray.txt" in page
    assert "class &#39;class 1&#39; had no image in val" in page


def test_names_cannot_break_out_of_the_page() -> None:
    report = make()
    evil = '<script>alert(1)</script>"onload="x'
    page = render(
        replace(
            report,
            dataset=evil,
            classes=[evil, *report.classes[1:]],
            images_per_class={"test": dict.fromkeys([evil, *report.classes[1:]], 1)},
            mistakes=[Mistake(Shown(evil, evil, photograph(1, 8, 8)), evil, 0.9)],
            mapped=[(Shown(evil, evil, photograph(1, 8, 8)), evil)] * 3,
            maps=[Map("pca", np.eye(3, 2))],
            sheets={evil: [photograph(0, 40, 40)]},
            quarantined=[(evil, evil)],
            notes=[evil],
        )
    )
    assert page.count("<script>") == 1  # the page's own
    assert page.count("</script>") == 1
    assert '"onload=' not in page


def test_the_page_needs_nothing_from_outside() -> None:
    page = render(make())
    assert "http:" not in page
    assert "https:" not in page
    assert re.findall(r"<(?:link|iframe)|@import", page) == []
    assert all(target.startswith(("#", "data:image/jpeg")) for target in re.findall(r"url\(([^)]*)", page))
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'src="([^"]*)"', page))


def test_the_same_report_gives_the_same_bytes_in_every_process() -> None:
    code = "from headstart.report.page import render; from tests.support.reports import make; print(render(make()))"
    pages = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(pages) == 1


@pytest.mark.parametrize("n_classes", [2, 40, 41, 1000])
def test_the_page_stays_small_with_many_classes_and_images(n_classes: int) -> None:
    page = render(make(n_classes, 10_000, n_mistakes=500))
    assert len(page.encode()) < 5_000_000
    assert ("most often confused" in page) == (n_classes > 40)


def test_no_mistakes_are_told_as_such() -> None:
    report = make(skill=50)
    page = render(report)
    assert not report.mistakes
    assert "There are none" in page
    assert "1.000 to 1.000" not in page  # a bootstrap without mistakes claims certainty


def test_most_confused_pairs_come_first() -> None:
    confusion = np.array([[9, 0, 3], [1, 9, 0], [0, 0, 9]])
    assert most_confused(confusion, ["a", "b", "c"]) == [("a", "c", 3), ("b", "a", 1)]


def test_a_class_without_held_out_images_is_absent_and_not_zero() -> None:
    report = make()
    absent = metrics.ClassScores(None, None, None, 0, 2)
    page = render(replace(report, per_class=[*report.per_class[:2], absent]))
    row = page[page.index('<th scope="row">class 2</th><td data-value="-1">') :]
    assert ">absent</td>" in row[:120]
    assert "1 class has no held-out image" in page


def test_the_accepted_model_stands_beside_the_new_one() -> None:
    page = render(make())
    assert (
        "The model is no worse. The accepted model v1.2.3 gets 87.1% of the same images right (82.0% to 91.0%)" in page
    )
    assert "7 are right with this model alone, 3 with that one alone" in page
    assert "No model has been accepted yet" in render(replace(make(), comparison=None))


@pytest.mark.parametrize(
    ("gain", "spread", "said"),
    [(0.05, 0.01, "likely to help"), (0.01, 0.02, "may help a little"), (-0.01, 0.02, "unlikely to help")],
)
def test_the_learning_curve_says_whether_more_labels_would_help(gain: float, spread: float, said: str) -> None:
    assert said in lesson([Point(0.5, 100, 0.9, spread, 0.3), Point(1.0, 200, 0.9 + gain, spread, 0.3)])


def test_figures_take_the_colours_of_the_page_and_share_no_id() -> None:
    page = render(make())
    assert re.findall(r"#0[1-6]0[1-6]0[1-6]", page) == []
    assert "var(--right)" in page[page.index("<svg") :]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert target in ids
