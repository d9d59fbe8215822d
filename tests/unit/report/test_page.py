from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from headstart.evaluation import metrics
from headstart.evaluation.predictions import class_records
from headstart.report.artefacts import Shown
from headstart.report.sections.chosen import lesson
from headstart.report.sections.fails import Map, Mistake, most_confused
from tests.support.images import ROOT, photograph
from tests.support.reports import LEARNING, make


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
    tags.feed(make().page())
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
    page = report.page()
    for name in ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy", "majority_accuracy"):
        assert f"{getattr(report.good.test, name):.1%}" in page
    for name in ("macro_f1", "log_loss", "brier", "ece"):
        assert f"{getattr(report.good.test, name):.3f}" in page
    assert "the given val is the held-out test set" in page
    assert "stray.txt" in page
    assert "class &#39;class 1&#39; had no image in val" in page


def test_names_cannot_break_out_of_the_page() -> None:
    report = make()
    evil = '<script>alert(1)</script>"onload="x'
    classes = [evil, *report.fails.classes[1:]]
    image = Shown(evil, evil, photograph(1, 8, 8))
    told = dict(zip(classes, report.fails.per_class.values(), strict=True))
    report = report.but("heading", dataset=evil).but(
        "fails",
        classes=classes,
        per_class=told,
        mistakes=[Mistake(image, evil, 0.9)],
        mapped=[(image, evil)] * 3,
        maps=[Map("pca", np.eye(3, 2))],
    )
    page = report.but(
        "data",
        dataset=evil,
        classes=classes,
        images_per_class={"test": dict.fromkeys(classes, 1)},
        sheets={evil: [photograph(0, 40, 40)]},
        quarantined=[(evil, evil)],
        notes=[evil],
    ).page()
    assert page.count("<script>") == 1  # the page's own
    assert page.count("</script>") == 1
    assert '"onload=' not in page


def test_the_page_needs_nothing_from_outside() -> None:
    page = make().page()
    assert "http:" not in page
    assert "https:" not in page
    assert re.findall(r"<(?:link|iframe)|@import", page) == []
    assert all(target.startswith(("#", "data:image/jpeg")) for target in re.findall(r"url\(([^)]*)", page))
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'src="([^"]*)"', page))


def test_the_same_report_gives_the_same_bytes_in_every_process() -> None:
    code = "from tests.support.reports import make; print(make().page())"
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
    page = make(n_classes, 10_000, n_mistakes=500).page()
    assert len(page.encode()) < 5_000_000
    assert ("most often confused" in page) == (n_classes > 40)


def test_no_mistakes_are_told_as_such() -> None:
    report = make(skill=50)
    page = report.page()
    assert not report.fails.mistakes
    assert "There are none" in page
    assert "1.000 to 1.000" not in page  # a bootstrap without mistakes claims certainty


def test_most_confused_pairs_come_first() -> None:
    confusion = np.array([[9, 0, 3], [1, 9, 0], [0, 0, 9]])
    assert most_confused(confusion, ["a", "b", "c"]) == [("a", "c", 3), ("b", "a", 1)]


def test_a_class_without_held_out_images_is_absent_and_not_zero() -> None:
    report = make()
    absent = class_records(["class 2"], [metrics.ClassScores(None, None, None, 0, 2)])
    page = report.but("fails", per_class={**report.fails.per_class, **absent}).page()
    row = page[page.index('<th scope="row">class 2</th><td data-value="-1">') :]
    assert ">absent</td>" in row[:120]
    assert "1 class has no held-out image" in page


def test_the_accepted_model_stands_beside_the_new_one() -> None:
    page = make().page()
    assert (
        "The model is no worse. The accepted model v1.2.3 gets 87.1% of the same images right (82.0% to 91.0%). "
        in page
    )
    assert "7 are right only with this model, 3 only with the accepted one" in page
    assert "This model was not compared with an accepted one" in make().but("good", comparison=None).page()


@pytest.mark.parametrize(
    ("gain", "spread", "said"),
    [(0.05, 0.01, "likely to help"), (0.01, 0.02, "may help a little"), (-0.01, 0.02, "unlikely to help")],
)
def test_the_learning_curve_says_whether_more_labels_would_help(gain: float, spread: float, said: str) -> None:
    half, whole = ({**point, "accuracy_std": spread} for point in LEARNING)
    assert said in lesson([{**half, "accuracy": 0.9}, {**whole, "accuracy": 0.9 + gain}])


def test_figures_take_the_colours_of_the_page_and_share_no_id() -> None:
    page = make().page()
    assert re.findall(r"#0[1-6]0[1-6]0[1-6]", page) == []
    assert "var(--right)" in page[page.index("<svg") :]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert target in ids
