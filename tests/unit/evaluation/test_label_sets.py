"""What evaluate makes of held-out answers: quantiles, their words, and where the answers come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from headstart.base import tables
from headstart.base.dataset import Dataset
from headstart.base.label_sets import quantile
from headstart.evaluation import metrics
from headstart.evaluation.folder import LabelSets
from headstart.onnx import finetune_folder, head_folder
from tasks import evaluate, train_head

N = 120
SCORES = np.random.default_rng(0).random(N)
IDS = [f"{number:064x}" for number in range(N)]


def held_out(ids: list[str] = IDS, scores: np.ndarray = SCORES) -> pl.DataFrame:
    probability = np.full(len(ids), 0.5, np.float32)
    return pl.DataFrame(
        {
            "image_id": ids,
            "correct": [True] * len(ids),
            "probability": probability,
            "mass_above": scores,
            "probabilities": pl.Series([[0.5]] * len(ids), dtype=pl.List(pl.Float32)),
        }
    )


def data(groups: list[str] = IDS) -> Dataset:
    """Return two classes: every other image. The last ten images are held out."""
    label, split = ["ants", "bees"] * (N // 2), ["train"] * 70 + ["val"] * (N - 80) + ["test"] * 10
    return Dataset(pl.DataFrame({"image_id": IDS, "path": IDS, "label": label, "group": groups, "split": split}))


def test_the_quantiles_are_those_of_train_and_val_in_any_order() -> None:
    known = N - 10
    order = np.random.default_rng(1).permutation(known)
    table = held_out([IDS[row] for row in order], SCORES[order])
    sets = evaluate._label_sets(0.9, table, data())
    assert (sets.n_images, sets.n_groups, sets.is_per_class) == (known, known, True)
    expected = [quantile(SCORES[label:known:2], np.arange(known // 2), 0.9) for label in (0, 1)]
    assert sets.quantiles == expected
    assert expected[0] != expected[1]


def test_a_held_out_image_among_them_is_an_error() -> None:
    with pytest.raises(KeyError):
        evaluate._label_sets(0.9, held_out(), data())


def test_images_in_groups_share_one_limit_and_words_say_why() -> None:
    known = N - 10
    groups = [IDS[row // 4] for row in range(N)]
    sets = evaluate._label_sets(0.9, held_out(IDS[:known], SCORES[:known]), data(groups))
    assert not sets.is_per_class
    assert sets.quantiles == [quantile(SCORES[:known], np.arange(known) // 4, 0.9)]
    assert sets.basis == (
        "All classes share one limit, by 110 images in 28 groups that the model had not learned from, so some classes"
        " may be held more often than others: a limit for each takes 49 such images of every class, one a group."
    )
    assert "true label;" in sets.promise


def test_too_few_images_for_the_coverage_make_full_sets_and_words_say_why() -> None:
    sets = evaluate._label_sets(0.999, held_out(IDS[:110], SCORES[:110]), data())
    assert sets.holds_all
    assert sets.quantiles == [1.0]
    assert sets.basis == (
        "Every set holds every label: a coverage of 0.999 takes at least 999 images that the model had not learned"
        " from, one a group, and there are 110. More images or a lower evaluate.coverage would give sets that say"
        " something."
    )
    assert not evaluate._label_sets(0.5, held_out(IDS[:1], SCORES[:1]), data()).holds_all


def test_the_promise_is_a_sentence_that_names_the_coverage_and_its_limit() -> None:
    sets = LabelSets(coverage=0.95, quantiles=[0.1, 0.2], n_images=200, n_groups=200)
    assert sets.promise == (
        "Of new images like those in training, about 95% or more get a set that holds the true label, in each class;"
        " for images from elsewhere, as of another camera or of none of the classes, nothing is promised."
    )
    by = "Each class has its own limit, by 200 images that the model had not learned from."
    assert sets.basis == by
    alone = sets.model_copy(update={"quantiles": [0.0, 0.0]})
    assert alone.basis.startswith(
        f"{by} The most probable label alone is right as often as asked, so every set is that"
    )


def test_a_fine_tuned_model_is_judged_by_validation_and_a_frozen_one_out_of_fold(tmp_path: Path) -> None:
    layout: Any = SimpleNamespace(head=tmp_path / "head", finetune=tmp_path / "finetune")
    for folder in (layout.head, layout.finetune):
        folder.mkdir()
    head_folder.write_out_of_fold(layout.head, held_out())
    loss, right = np.ones(9), np.array([True] * 8 + [False])
    validation = {"image_id": IDS[:9], "label": ["ants"] * 9, "frozen_log_loss": loss, "tuned_log_loss": loss}
    validation |= {"frozen_correct": ~right, "tuned_correct": right, "tuned_probability": loss.astype(np.float32)}
    table = pl.DataFrame({**validation, "tuned_mass_above": SCORES[:9]})
    finetune_folder.write_tables(layout.finetune, pl.DataFrame({"epoch": [0]}), table)
    assert evaluate._held_out_answers("frozen", layout).equals(held_out())
    found = evaluate._held_out_answers("tuned", layout)
    assert found["mass_above"].to_list() == SCORES[:9].tolist()
    assert found["correct"].to_list() == right.tolist()


def test_a_head_of_an_earlier_version_is_not_taken_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table lacks a column."""
    settings, features = SimpleNamespace(model_dump_json=lambda: "{}"), SimpleNamespace(digest="ab")
    given: Any = (settings, data().of("train"), ["ants", "bees"], features)
    now = train_head._made_for(*given)
    older = tables.Table("out of fold", ("image_id", "correct", "probability"), tables.OUT_OF_FOLD.rules)
    monkeypatch.setattr(tables, "OUT_OF_FOLD", older)
    assert train_head._made_for(*given) != now


def test_the_interval_of_a_share_keeps_groups_whole() -> None:
    held = np.repeat(np.random.default_rng(2).random(40) < 0.9, 5)
    whole = metrics.share_interval(held, np.repeat(np.arange(40), 5), 2000, 0)
    alone = metrics.share_interval(held, np.arange(200), 2000, 0)
    assert whole.low < alone.low < held.mean() < alone.high < whole.high
    assert (whole.high - whole.low) / (alone.high - alone.low) == pytest.approx(5**0.5, rel=0.15)
    assert metrics.share_interval(np.ones(20, bool), np.arange(20), 100, 0) == (0.025 ** (1 / 20), 1.0)
