"""What the page says of the choice: heads and levels that were tried, nesting, more labels."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from headstart.heads import blend
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import level_sets
from headstart.onnx.backbone_folder import LevelRecord
from headstart.report.figures import LEVEL_SETS
from headstart.report.sections.chosen import MAX_SHOWN, SHORT, honesty, lesson, reads
from tests.support.reports import CANDIDATES, HEAD, LEARNING, candidate, contest, make


def section_of(page: str) -> str:
    """Return the text of "How was it chosen?", without tags."""
    page = page[page.index('<h2 id="chosen">') :]
    return " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", page[: page.index("</section>")], flags=re.DOTALL).split())


def test_every_kind_and_every_set_of_levels_has_its_words_and_its_mark() -> None:
    assert set(SHORT) == {*KINDS, blend.NAME}
    known = [LevelRecord(name=name, start=0, width=1, pooling="map") for name in ("a", "b", "last")]
    given = {each.name for wanted in ("last", "all", "auto", ["a"]) for each in level_sets(known, wanted)}
    assert set(LEVEL_SETS) == {*given, "of several"}


def test_the_heads_that_were_tried_stand_in_a_table_the_lowest_log_loss_first() -> None:
    page = make().page()
    table = page[page.index('id="heads"') : page.index('id="candidates"')]
    kinds = re.findall(r'<th scope="row">(\w+)( · chosen)?', table)
    assert kinds == [("blend", ""), ("ridge", " · chosen"), ("lda", ""), ("ridge", ""), ("knn", "")]
    told = section_of(page)
    assert "Of 6 heads that were tried, ridge on stages was chosen (ridge regression, L2 strength 0.1)" in told
    assert "91.2% ± 1.0 89.0% 86.0% to 92.0%" in told
    assert "All 6 candidates" in told
    assert "Hollow: not tried in every fold" in told


def test_of_many_heads_the_first_are_shown_and_the_chosen_one_among_them() -> None:
    many = [candidate("lda", "stages", cv_log_loss=0.1 + number / 100) for number in range(30)]
    page = make().but("chosen", candidates=[*many, candidate("mlp", "last", cv_log_loss=9, chosen=True)]).page()
    table = page[page.index('id="heads"') : page.index('id="candidates"')]
    kinds = re.findall(r'<th scope="row">(\w+)', table)
    assert kinds == ["lda"] * (MAX_SHOWN - 1) + ["mlp"]
    assert f"{MAX_SHOWN} of 31 rows" in page


def test_a_single_head_has_nothing_to_be_compared_with() -> None:
    alone = candidate("lda", "last", chosen=True)
    report = make().but("chosen", candidates=[alone])
    assert "heads" not in report.chosen.figures()
    told = section_of(report.page())
    assert "It is the simplest" not in told
    assert "too good" not in told
    assert 'id="candidates"' not in report.page()


def test_the_winners_own_figure_is_told_beside_the_nested_one() -> None:
    assert honesty(HEAD, 6) == (
        "The chosen head gets 91.2% of these images right. This may be a little too good, because it was picked for its"
        " results on them. Nested cross-validation shows by how much: for each fold, the whole choice is made anew"
        " without its images, and the head so chosen answers them. 90.5% are right (95% interval 87.6% to 92.8%): the"
        " choice flattered by 0.7 points. 3 of the 5 choices gave the same kind and levels."
    )
    assert HEAD.nested
    lucky = HEAD.nested.model_copy(update={"optimism": -0.0012})
    assert "the choice did not flatter" in honesty(HEAD.model_copy(update={"nested": lucky}), 6)


@pytest.mark.parametrize(("n_folds", "said"), [(2, "two folds leave none"), (5, "train_head.memory_mb")])
def test_a_choice_that_could_not_be_repeated_is_told(n_folds: int, said: str) -> None:
    head = HEAD.model_copy(update={"nested": None, "n_folds": n_folds})
    rows = [{**each, "nested_accuracy": None, "nested_low": None, "nested_high": None} for each in CANDIDATES]
    told = section_of(make().but("chosen", head=head, candidates=rows).page())
    assert "By how much is not known" in told
    assert said in told
    assert "nested" not in told.replace("train_head", "")


@pytest.mark.parametrize(
    ("levels", "ships", "said"),
    [
        (["last"], True, "The head reads 'last' alone."),
        (["a", "b", "last"], True, "The head reads all of them."),
        (["b", "last"], True, "The head reads 2 of them: b, last."),
        (["a", "b"], True, "It does without 'last', so the layers above b are left out of model.onnx."),
        (["a", "b"], False, "The head reads 2 of them: a, b."),
    ],
)
def test_the_levels_that_the_head_reads_are_told(levels: list[str], ships: bool, said: str) -> None:
    assert reads(["a", "b", "last"], levels, ships=ships).endswith(said)


def test_a_backbone_of_one_level_is_told_as_such() -> None:
    assert reads(["last"], ["last"], ships=True).startswith("The backbone gives its last features alone")


def test_a_blend_names_its_members_and_class_weights_are_told() -> None:
    member = HEAD.recipe.members[0]
    both = [member.model_copy(update={"weight": 0.7}), member.model_copy(update={"kind": "lda", "weight": 0.3})]
    training = HEAD.training.model_copy(update={"class_weights": [1.0, 2.0], "shift": [0.1, 0.9]})
    changes = {"recipe": HEAD.recipe.model_copy(update={"members": both}), "training": training}
    blended = [{**each, "chosen": each["kind"] == "blend"} for each in CANDIDATES]
    told = section_of(make().but("chosen", head=HEAD.model_copy(update=changes), candidates=blended).page())
    assert "It blends ridge on 2 levels (70%), lda on 2 levels (30%)" in told
    assert "train_head.class_weight" in told
    assert "train_head.logit_adjustment" in told


def test_fine_tuning_is_told_to_start_from_the_best_matrix_product() -> None:
    section = make().chosen
    assert section.start == "Fine-tuning started from the chosen head."
    other = HEAD.recipe.model_copy(update={"temperature": 1.5})
    network = replace(section, head=HEAD.model_copy(update={"recipe": other}))
    assert network.start.endswith("so fine-tuning started from the best that is: ridge.")
    history = [
        {"epoch": epoch, "train_loss": epoch and 0.3, "val_log_loss": 0.3, "val_accuracy": 0.9}
        | {"learning_rate": 1e-3, "n_trainable": 9}
        for epoch in range(4)
    ]
    told = section_of(make().but("chosen", chosen="tuned", contest=contest(), history=history).page())
    assert "Fine-tuning started from the chosen head." in told
    assert "left out of model.onnx" not in told  # it is the frozen network's


@pytest.mark.parametrize(
    ("is_tuned", "said"), [(False, "32 features of 2 of its 3"), (True, "64 features of 3 of its 3")]
)
def test_what_ships_reads_the_features_of_its_levels(is_tuned: bool, said: str) -> None:
    assert said in make().but("shipped", is_tuned=is_tuned).page()


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.02, 0.08, "likely to help"), (-0.02, 0.12, "chance may explain that"), (-0.03, 0.004, "unlikely to help")],
)
def test_the_learning_curve_says_whether_more_labels_would_help(low: float, high: float, said: str) -> None:
    learning = HEAD.learning.model_copy(update={"gain": (low + high) / 2, "gain_low": low, "gain_high": high})
    told = lesson(LEARNING, learning)
    assert said in told
    assert f"(95% interval {100 * low:+.1f} to {100 * high:+.1f}, by differences on the same images)" in told
    assert (
        "ten times the images (2,000) would bring about 95.0% (95% interval 93.0% to 97.0%) in place of 90.0%" in told
    )
    assert "No curve can be drawn" in lesson(LEARNING, learning.model_copy(update={"forecast": []}))


def test_nothing_is_said_of_more_images_where_the_curve_has_no_fewer_to_compare_with() -> None:
    """300 classes of three images: a half of the images, two of each class at least, is all of them."""
    learning = HEAD.learning.model_copy(update={"gain": 0.0, "gain_low": -0.01, "gain_high": 0.001, "forecast": []})
    told = lesson([*LEARNING[:-2], {**LEARNING[-1], "fraction": 0.5}, LEARNING[-1]], learning)
    assert "is not known" in told
    assert "unlikely" not in told


def test_a_backbone_that_was_chosen_on_the_same_images_is_told() -> None:
    said = "The backbone was chosen on these images too, which no figure here makes up for"
    assert said not in section_of(make().page())
    assert said in section_of(make().but("chosen", is_ranked=True).page())
