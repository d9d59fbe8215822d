"""The model card, for the model of tests/models."""

from __future__ import annotations

from typing import Any

import pytest

from headstart.base.decisions import HeldOut
from headstart.evaluation.folder import Choice
from headstart.handover import card, folder
from headstart.onnx.head_folder import HeadRecord
from tests.support.images import ROOT
from tests.support.reports import CALIBRATION, HEAD, SETS, contest

FACTS = folder.read_model(ROOT / "tests" / "models" / "format-1")
OTHERS: dict[str, Any] = {
    "dataset": "photographs",
    "form": "class folders",
    "decided": ("", ""),
    "int8": "None was tried.",
    "n_checked": 40,
}


def of(head: HeadRecord, *, tuned: bool = False, facts: folder.ModelRecord = FACTS) -> str:
    choice = Choice(
        chosen="tuned" if tuned else "frozen", n_images=500, temperature=1.2, calibration=CALIBRATION, contest=contest()
    )
    return card.card(facts, head, choice, **OTHERS)


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (("last",), "one-hot targets, on the backbone's last features, trained on 500 images."),
        (("stem", "last"), "on the backbone's features of stem, last, trained on 500 images."),
        (("stem", "blocks.1"), "of stem, blocks.1 without the layers above these, trained on 500 images."),
    ],
)
def test_the_head_is_named_with_the_levels_that_it_reads(levels: tuple[str, ...], said: str) -> None:
    assert said in of(HEAD.model_copy(update={"levels": levels}))


def test_both_figures_of_the_choice_are_told() -> None:
    assert (
        "5-fold cross-validation on 500 training images gave 91.20% accuracy. The head was picked on these images,"
        " which can flatter it; where the choice is repeated within every fold, accuracy is 90.50% (95% interval"
        " 87.60% to 92.80%).\n"
    ) in of(HEAD)
    assert "which can flatter it; by how much is not known.\n" in of(HEAD.model_copy(update={"nested": None}))


def test_a_fine_tuned_model_has_no_figures_of_the_frozen_head() -> None:
    text = of(HEAD, tuned=True)
    assert "fine-tuned for 2 epochs" in text
    assert "initialised by the best linear head of the frozen backbone" in text
    assert "Choice of the head" not in text


@pytest.mark.parametrize(
    ("fit", "said"),
    [
        ("crop", "It sees only the centre square of an image."),
        ("squeeze", "It sees the whole image, squeezed to a square"),
        ("pad", "It sees the whole image, padded to a square with grey bars"),
    ],
)
def test_what_the_model_sees_of_an_image_is_told(fit: str, said: str) -> None:
    preprocessing = FACTS.preprocessing.model_copy(update={"fit": fit})
    assert said in of(HEAD, facts=FACTS.model_copy(update={"preprocessing": preprocessing}))


def test_how_many_bits_hold_values_is_told_where_it_is_not_all() -> None:
    assert "16 bits" not in of(HEAD)
    told = of(HEAD, facts=FACTS.model_copy(update={"bits": 12}))
    assert "Files with 16 bits a channel hold values of 12 bits, as in training: a value v is v * 255 / 4095," in told


def test_what_label_sets_promise_and_hold_is_told_where_there_are_any() -> None:
    assert "Label sets" not in of(HEAD)
    achieved = {"set_coverage": 0.9123, "set_coverage_low": 0.88, "set_coverage_high": 0.94, "mean_set_size": 1.5}
    test = FACTS.test.model_copy(update=achieved)
    text = of(HEAD, facts=FACTS.model_copy(update={"label_sets": SETS, "test": test}))
    (line,) = [line for line in text.splitlines() if line.startswith("- **Label sets**")]
    assert SETS.promise in line
    assert "On the held-out images 91.23% do (95% interval 88.00% to 94.00%), with 1.50 labels a set" in line


@pytest.mark.parametrize("tuned", [False, True])
def test_a_paragraph_is_one_line(tuned: bool) -> None:
    """Prefect's page keeps line breaks."""
    listed = [line for line in of(HEAD, tuned=tuned).splitlines() if line.startswith("- ")]
    assert len(listed) == (7 if tuned else 8)
    assert all(line.startswith("- **") for line in listed)


def test_where_classes_differ_in_size_balanced_accuracy_comes_first() -> None:
    uneven = {
        "class_ratio": 100.0,
        "balanced_accuracy": 0.5,
        "balanced_accuracy_low": 0.4,
        "balanced_accuracy_high": 0.9,
    }
    facts = FACTS.model_copy(update={"test": FACTS.test.model_copy(update=uneven)})
    choice = Choice(chosen="frozen", n_images=500, temperature=1.2, calibration=CALIBRATION, contest=None)
    told = card.card(facts, HEAD, choice, **OTHERS)
    first = (
        "balanced accuracy 50.00% (95% interval 40.00% to 90.00%), which counts because classes differ much in size;"
    )
    assert f"held-out images** {first} accuracy" in told
    assert "balanced accuracy" not in of(HEAD)


def test_the_card_says_on_how_many_images_the_model_was_run() -> None:
    assert f"files of 40 of {FACTS.test.n_images} held-out images were run" in of(HEAD)
    choice = Choice(chosen="frozen", n_images=500, temperature=1.2, calibration=CALIBRATION, contest=None)
    every = card.card(FACTS, HEAD, choice, **{**OTHERS, "n_checked": FACTS.test.n_images})
    assert f"files of all {FACTS.test.n_images} held-out images were run" in every


def test_the_card_says_what_people_decided_and_that_it_concerns_held_out_images() -> None:
    choice = Choice(chosen="frozen", temperature=1.0, n_images=500, contest=None, calibration=CALIBRATION)
    without = card.card(FACTS, HEAD, choice, **OTHERS)
    changed = HeldOut(n_dropped=2, n_relabelled=1, n_moved_in=0, n_moved_out=0, n_unknown=0).told()
    told = card.card(FACTS, HEAD, choice, **{**OTHERS, "decided": ("Images by decisions: 2 dropped.", changed)})
    assert "reviewed" not in without
    assert "`. Images by decisions: 2 dropped.\n" in told
    assert (
        "**The held-out images were changed by decisions in reviewed.csv, after the answers to them could be seen"
        in told
    )
    assert ": 2 dropped, 1 relabelled. Figures on them may be too good.**\n" in told
