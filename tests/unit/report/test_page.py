from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from markupsafe import escape

from headstart import params_file
from headstart.base.decisions import Decided
from headstart.base.errors import CheckError
from headstart.base.validation import ValidationSummary
from headstart.evaluation import metrics
from headstart.evaluation.predictions import class_records
from headstart.evaluation.slices import Slice
from headstart.onnx.backbone_folder import Fit
from headstart.report import figures
from headstart.report.artefacts import Artefacts, Shown
from headstart.report.figures import MAX_COLOURS, class_colours, feature_map
from headstart.report.page import with_code, with_commit
from headstart.report.sections import data
from headstart.report.sections.fails import Map, Mistake, most_confused
from headstart.report.sections.origin import told
from headstart.report.sections.ranking import between
from headstart.report.sections.trust import least_held
from tests.support.images import ROOT, photograph
from tests.support.reports import BACKBONE, CALIBRATION, make


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
        "What was it made with?",
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


def test_the_page_tells_what_sets_of_labels_promise_hold_and_how_large_they_are() -> None:
    report = make()
    trust, page = report.trust, report.page()
    assert escape(trust.sets.promise) in page
    assert "<dd>92.0% <small>95% interval 88.0% to 95.0%; asked for 90%</small></dd>" in page
    assert trust.sizes.sum() == report.good.test.n_images
    assert "<dt>Empty sets</dt><dd>0.0% " in page
    full = trust.sizes[3] / trust.sizes.sum()
    assert 0 < full < 1
    assert f"<dt>Sets of every label</dt><dd>{full:.1%}</dd>" in page
    assert f"{trust.lowest.label}: for {trust.lowest.n_held} of {trust.lowest.n_images}." in page
    for size in (1, 2, 3):
        assert f">{trust.sizes[size]:,}</text>" in figures.set_sizes(trust.sizes)


def test_the_class_that_sets_hold_least_often_is_found_among_those_with_images() -> None:
    held = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]], bool)
    assert least_held(held, np.array([0, 1, 1, 0]), ["a", "b", "c"]) == ("b", 1, 2)


def run_of(centre_share: float, fit: Fit = "crop", **changes: Any) -> Artefacts:
    """Return a run of which validation and preprocessing are known."""
    run = Artefacts(None, None)  # type: ignore[arg-type]
    usual = {
        "n_files": 9,
        "n_images": 9,
        "n_quarantined": 0,
        "n_no_images": 0,
        "n_copies": 0,
        "n_dropped": 0,
        "n_classes": 2,
        "n_groups": 9,
    }
    usual |= {"dropped_classes": {}, "images_per_class": {}, "formats": {}, "bits": None, "data_sha256": "ab" * 32}
    run.validated = ValidationSummary(form="class folders", centre_share=centre_share, **{**usual, **changes})
    fitted = BACKBONE.preprocessing.model_copy(update={"fit": fit})
    run.backbone = BACKBONE.model_copy(update={"preprocessing": fitted})
    return run


def test_a_warning_says_how_much_of_wide_images_is_not_seen() -> None:
    wide = run_of(0.5625)  # 16:9
    (warning,) = data.warnings_of(wide)
    assert "of a typical one, 44% lies outside the centre square" in warning
    assert "set transform.fit to squeeze or pad in params.yaml" in warning
    assert data.notes_of(wide)[0] == "The network sees only the centre square of an image."
    assert data.warnings_of(run_of(0.75)) == []  # 4:3
    assert data.warnings_of(run_of(0.5625, "pad")) == data.warnings_of(run_of(0.5625, "squeeze")) == []


def test_the_page_says_how_values_were_read_and_which_classes_were_dropped() -> None:
    notes = data.notes_of(run_of(1.0, "squeeze", bits=12, dropped_classes={"midges": 2, "wasps": 1}))
    assert notes == [
        "The network sees the whole image, squeezed to a square, and of that the middle 88%.",
        "Values of 12 bits in files with 16 bits a channel: 4095 is shown white.",
        "2 classes with fewer images than validate.min_images left out: midges (2), wasps (1).",
    ]


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
        held_out=[(image, evil)] * 3,
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


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("run `dvc repro` <now>", "run <code>dvc repro</code> &lt;now&gt;"),
        ("`<b>` and `c`", "<code>&lt;b&gt;</code> and <code>c</code>"),
        ("the class a`<i>", "the class a`&lt;i&gt;"),
        ("", ""),
    ],
)
def test_commands_in_messages_are_code_and_all_is_escaped(said: str, shown: str) -> None:
    assert str(with_code(said)) == shown


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


def test_two_classes_have_their_roc_and_precision_recall_curves_and_others_have_not() -> None:
    report = make(2, skill=1)
    page = report.page()
    assert "How well does it tell the two classes apart?" in page
    assert report.ranking
    assert {*report.ranking.figures()} == {"roc", "precision_recall"}
    assert f"Area under the curve: {report.ranking.roc.area:.3f}" in page
    recalls = [report.fails.per_class[each.name].recall for each in report.ranking.classes]
    assert [each.recall for each in report.ranking.classes] == pytest.approx(recalls, abs=1e-6)
    assert "How well does it tell" not in make(3).page()


def test_two_classes_of_which_one_is_absent_or_never_named_are_no_error() -> None:
    likely = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    assert between(["a", "b"], np.zeros(3, int), likely) is None
    never = between(["a", "b"], np.array([0, 1, 1]), likely)
    assert never
    assert [each.precision for each in never.classes] == [pytest.approx(1 / 3), None]
    assert never.figures()["precision_recall"].count("<svg") == 1


def test_the_accepted_model_stands_beside_the_new_one() -> None:
    page = make().page()
    assert (
        "The model is no worse. The accepted model v1.2.3 gets 87.1% of the same images right (82.0% to 91.0%). "
        in page
    )
    assert "7 are right only with this model, 3 only with the accepted one" in page
    assert "This model was not compared with an accepted one" in make().but("good", comparison=None).page()


def test_the_bar_of_an_interval_ends_where_the_interval_ends() -> None:
    bars = make().good.figures()["comparison"], make().chosen.figures()["heads"]
    for svg in bars:
        lines = re.findall(r'<path d="[^"]*"[^>]*style="([^"]*)', svg)
        thick = [style for style in lines if re.search(r"stroke-width: [24](;|$)", style) and "opacity: 0.5" in style]
        assert thick
        assert all("stroke-linecap: butt" in style or "stroke-linecap" not in style for style in thick)


def test_no_class_has_the_colour_of_the_rings_around_mistakes() -> None:
    colours = class_colours()
    assert len(set(colours)) == len(colours) == MAX_COLOURS
    assert all(max(colour) - min(colour) > 0.05 for colour in colours)  # rings have the ink's, a grey
    svg = feature_map("map", np.eye(4, 2), np.arange(4) % 2, np.array([True, True, False, True]), ["a", "b"])
    rings = svg[svg.index('id="map-rings"') :]
    assert "stroke: currentColor" in rings[: rings.index("</g>")]
    assert "mistake" in svg


def test_slices_are_shown_with_those_that_are_worse_and_their_names_are_no_markup() -> None:
    assert 'id="by-slice"' not in make().page()
    usual = Slice(
        slice="camera",
        value="<b>rear</b>",
        n_images=50,
        n_groups=50,
        accuracy=0.7,
        accuracy_low=0.55,
        accuracy_high=0.82,
        others=0.97,
        p_value=0.0004,
        is_worse=True,
    )
    few = usual.model_copy(update={"value": "top", "others": None, "p_value": None, "is_worse": False})
    page = make().but("fails", slices=[usual, few]).page()
    assert '&lt;b&gt;rear&lt;/b&gt; <span class="wrong">worse</span>' in page
    assert "<b>rear" not in page
    assert "1 of 1 slices is worse than the others of its kind by more than chance" in page
    assert '70.0% <small class="soft">55.0% to 82.0%</small>' in page
    fine = usual.model_copy(update={"is_worse": False})
    assert "No slice is worse than the others of its kind" in make().but("fails", slices=[fine]).page()
    assert "too few held-out images to compare slices" in make().but("fails", slices=[few]).page()


def test_every_parameter_is_told_unless_the_model_does_not_follow_from_it() -> None:
    values = params_file.load(ROOT / "params.yaml")
    on = {"finetune": values.finetune.model_copy(update={"enabled": True})}
    on |= {"rank": values.rank.model_copy(update={"backbones": (values.backbone,)})}
    given = values.model_copy(update=on)
    every = {
        f"{section}.{name}"
        for section, fields in given.model_dump(by_alias=True).items()
        for name in fields
        if section not in ("audit", "cache", "cluster", "report")  # what is looked for, where it is kept, what is shown
    }
    # A path of one machine; where pixels are kept; what is handed over beside the model, and whether.
    left_out = {"data.root", "data.unlabelled", "transform.keep_pixels", "export.conformance_images"}
    left_out |= {"export.parity_images", "export.gate", "export.licences"}
    assert {*told(given)} == every - left_out
    off = [name for name in told(values) if name.startswith(("finetune.", "rank."))]
    assert off == ["finetune.enabled", "rank.backbones"]


def test_a_copy_names_the_commit_and_the_page_says_where_to_look_for_it() -> None:
    page = make().page()
    assert "git log -1 -- dvc.lock" in page
    copy = with_commit(page, "0123abc of <today>")
    assert "<dt>commit</dt><dd>0123abc of &lt;today&gt;</dd>" in copy
    assert "git log" not in copy
    with pytest.raises(CheckError, match="no place for the commit"):
        with_commit("<html></html>", "0123abc")


def test_figures_take_the_colours_of_the_page_and_share_no_id() -> None:
    page = make().page()
    assert re.findall(r"#0[1-6]0[1-6]0[1-6]", page) == []
    assert "var(--right)" in page[page.index("<svg") :]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="|url\()#([^")]+)', page):
        assert target in ids


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("fitted", "Temperature 1.2, fitted on other images; by cross-validation it takes the log loss from 0.340 to"),
        ("at its bound", "No temperature ships: the one that was fitted is at the end of its range (1.2)"),
        ("no better than none", "No temperature ships: by cross-validation the fitted one (1.2) takes the log loss"),
    ],
)
def test_the_report_says_whether_a_temperature_ships_and_why(outcome: str, said: str) -> None:
    page = make().but("trust", calibration=CALIBRATION.model_copy(update={"outcome": outcome})).page()
    assert said in page
    assert ("before calibration" in page) == (outcome == "fitted")


def test_where_classes_differ_in_size_balanced_accuracy_is_the_headline_and_it_says_why() -> None:
    test = make().good.test.model_copy(update={"class_ratio": 100.0, "balanced_accuracy": 0.5})
    report = make().but("good", test=test, warnings=["classes differ in size: so and so."])
    page = replace(report, heading=replace(report.heading, test=test)).page()
    assert '<p class="headline">50.0% <small>balanced accuracy on 200 held-out images' in page
    assert '<p class="wrong">Classes differ in size: so and so.</p>' in page
    assert "50.0% balanced accuracy on 200 held-out images</title>" in page
    assert f"<dt>Accuracy</dt><dd>{test.accuracy:.1%}" in page
    assert "this model, balanced accuracy" in page
    assert "balanced accuracy on" not in make().page()


def test_the_page_lists_what_people_decided_and_says_nothing_of_images_that_are_all_used() -> None:
    report = make().but("data", quarantined=[])
    assert "Nothing: every image found is used." in report.page()
    rows = [
        Decided("a" * 64, "val/bees/0.png", True, "bees", "bees", "a", "a", "val", "val"),
        Decided("b" * 64, "val/bees/<2>.png", False, "bees", "ants", "b", "burst", "train", "val"),
    ]
    page = report.but("data", decided=rows).page()
    assert "Nothing: every image" not in page
    assert "1 dropped, 1 given another label, 1 put in a group, 1 moved to another split." in page
    assert '<td>val/bees/0.png</td><td class="text">dropped</td>' in page
    assert "<td>val/bees/&lt;2&gt;.png</td>" in page
    assert ">label ants instead of bees. group burst. val instead of train.</td>" in page
