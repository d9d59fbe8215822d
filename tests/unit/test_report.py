from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from headstart import metrics
from headstart.report import Mistake, Report, most_confused, render
from tests.conftest import ROOT, photograph


def make(n_classes: int = 3, n_images: int = 200, seed: int = 0, skill: float = 2.0) -> Report:
    """Return a report on drawn predictions."""
    random = np.random.default_rng(seed)
    classes = [f"class {index}" for index in range(n_classes)]
    labels = random.integers(0, n_classes, n_images)
    odds = np.exp(random.normal(size=(n_images, n_classes)) + skill * np.eye(n_classes)[labels])
    probabilities = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    predicted = probabilities.argmax(1)
    confusion = metrics.confusion_matrix(labels, predicted, n_classes)
    return Report(
        dataset="photographs",
        form="class folders",
        test=metrics.evaluate(
            labels,
            probabilities,
            np.arange(n_images).astype(str),
            majority_label=0,
            bootstrap_samples=100,
            ece_bins=15,
            seed=0,
        ),
        classes=classes,
        confusion=confusion,
        per_class=metrics.per_class(confusion),
        mistakes=[
            Mistake(
                f"{index}.png", classes[labels[index]], classes[predicted[index]], 0.9, photograph(int(index), 40, 40)
            )
            for index in np.flatnonzero(labels != predicted)[:8]
        ],
        calibrated=metrics.reliability(labels, probabilities, 15),
        uncalibrated=metrics.reliability(labels, probabilities**2, 15),
        images_per_class={split: dict.fromkeys(classes, 7) for split in ("train", "val", "test")},
        notes=["the given val is the held-out test set"],
        warnings=["class 'class 1' had no image in val"],
        quarantined=[("stray.txt", "not in a class folder")],
        candidates=[
            {
                "strength": strength,
                "cv_accuracy": 0.9,
                "cv_accuracy_std": 0.01,
                "cv_log_loss": 0.3,
                "temperature": 1.2,
                "chosen": strength == 0.1,
            }
            for strength in (0.01, 0.1)
        ],
        head={"kind": "logistic regression", "n_images": 500, "n_folds": 5, "temperature": 1.2},
        choice={"enabled": False, "chosen": "frozen", "n_images": 500, "temperature": 1.2},
        history=[],
        backbone={
            "name": "timm/net",
            "weights": "bundled",
            "weights_sha256": "ab" * 32,
            "licence": "Apache-2.0",
            "n_features": 64,
            "preprocessing": {
                "resize_px": 256,
                "input_px": 224,
                "interpolation": "bicubic",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.5, 0.5, 0.5],
            },
        },
        data_sha256="cd" * 32,
    )


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
        "How good is it?",
        "Where does it fail?",
        "Can the probabilities be trusted?",
        "What was it trained on?",
        "How was it chosen?",
        "What is it?",
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
            mistakes=[Mistake(evil, evil, evil, 0.9, photograph(1, 8, 8))],
            quarantined=[(evil, evil)],
            notes=[evil],
        )
    )
    assert page.count("<script>") == 1  # the page's own
    assert '"onload=' not in page


def test_the_page_needs_nothing_from_outside() -> None:
    page = render(make())
    assert "http:" not in page
    assert "https:" not in page
    assert re.findall(r"<(?:link|iframe)|url\(|@import", page) == []
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'src="([^"]*)"', page))


def test_the_same_report_gives_the_same_bytes_in_every_process() -> None:
    code = "from tests.unit.test_report import make, render; print(hash(render(make())) and render(make()))"
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


@pytest.mark.parametrize("n_classes", [2, 25, 26, 1000])
def test_the_page_stays_small_with_many_classes(n_classes: int) -> None:
    page = render(make(n_classes, 4000))
    assert len(page) < 60_000 + 2_000 * n_classes
    assert ("most often confused" in page) == (n_classes > 25)


def test_no_mistakes_are_told_as_such() -> None:
    page = render(make(skill=50))
    assert "There are none" in page
    assert "<img" not in page
    assert "1.000 to 1.000" not in page  # a bootstrap without mistakes claims certainty


def test_most_confused_pairs_come_first() -> None:
    confusion = np.array([[9, 0, 3], [1, 9, 0], [0, 0, 9]])
    assert most_confused(confusion, ["a", "b", "c"]) == [("a", "c", 3), ("b", "a", 1)]
