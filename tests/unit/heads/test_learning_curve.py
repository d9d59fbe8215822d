from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from headstart.heads import design, knn, lda, learning_curve, members, mlp, plan, prototype, ridge, softmax
from headstart.heads.contract import Kind
from headstart.heads.design import Source
from headstart.heads.folds import draw
from headstart.heads.learning_curve import FRACTIONS, Point, gain_of
from headstart.heads.sweep import Selection
from tests.support.heads import clusters, level_sets, n_classes_of, select, source_of


def data(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return (random.normal(size=(n, 40)) + 1.2 * np.eye(3, 40)[labels]).astype(np.float32), labels


def curve_of(source: Source, **changes: Any) -> tuple[Selection, list[Point]]:
    selection = select(source, **{"folds": 5, "is_nested": False, **changes})
    return selection, learning_curve.measure(selection, source, n_classes_of(source), seed=0, memory_mb=1000).points


@pytest.mark.parametrize("kind", [softmax, ridge, lda, prototype, knn, mlp], ids=lambda kind: kind.NAME)
def test_more_images_make_a_better_head_and_the_last_point_is_the_selections(kind: Kind) -> None:
    selection, points = curve_of(source_of(*data()), kinds=[kind])
    assert [point.fraction for point in points] == [0.1, 0.25, 0.5, 1.0]
    assert [point.n_images for point in points] == [48, 120, 240, 480]
    chosen = selection.chosen
    assert points[-1].accuracy == pytest.approx(chosen.cv_accuracy)
    assert points[-1].log_loss == pytest.approx(chosen.cv_log_loss)
    assert points[-1].accuracy_low < points[-1].accuracy < points[-1].accuracy_high
    assert points[0].accuracy < points[-1].accuracy
    assert points[0].log_loss > points[-1].log_loss


def test_a_point_is_what_heads_of_these_parts_give() -> None:
    features, labels = data(200)
    source = source_of(features, labels)
    selection, points = curve_of(source, kinds=[lda], adjustment=0.5)
    right = np.zeros(200, bool)
    for fold in range(5):
        others = np.flatnonzero(selection.fold_of != fold)
        part = others[draw(labels[others], others, 80, 0)]
        head = members.fit(selection.members, source, 3, selection.training, memory_mb=1000, images=part)
        held_out = selection.fold_of == fold
        scores = head.calibrated(selection.temperature, selection.shift).scores(features[held_out])
        right[held_out] = scores.argmax(1) == labels[held_out]
    assert points[2].accuracy == pytest.approx(right.mean())


def test_a_blend_and_a_part_of_the_levels_have_a_curve() -> None:
    labels = np.arange(600) % 4
    features = np.random.default_rng(5).normal(size=(600, 80)).astype(np.float32)
    for label, start in enumerate((20, 26, 50, 56)):
        features[labels == label, start : start + 6] += 1
    levels = level_sets({"last": slice(20, 50), "other": slice(50, 80)}, 80)
    selection, points = curve_of(source_of(features, labels), kinds=[ridge, lda], level_sets=levels)
    assert selection.chosen.kind == "blend"
    assert selection.columns.tolist() == list(range(20, 80))
    assert points[0].accuracy < points[1].accuracy < points[3].accuracy


def test_nobody_is_asked_about_what_he_learned_from() -> None:
    features, labels = data(200)
    labels = np.random.default_rng(1).permutation(labels)  # nothing to learn: what has been seen would be known
    groups = np.repeat(np.arange(200), 4)
    source = source_of(np.repeat(features, 4, axis=0), np.repeat(labels, 4), groups)
    _, points = curve_of(source, kinds=[knn])
    assert all(point.accuracy < 0.45 for point in points)


def test_images_outside_the_cross_validation_are_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_VALIDATED", 300)
    selection, points = curve_of(source_of(*data()))
    assert len(selection.validated) == 300
    assert [point.n_images for point in points] == [24, 60, 120, 240]


def test_the_same_seed_and_any_number_of_threads_give_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(*data(300))
    _, points = curve_of(source, kinds=[softmax])
    for module in (learning_curve, design):
        monkeypatch.setattr(module, "n_cores", lambda: 1)
    assert curve_of(source, kinds=[softmax])[1] == points


def test_every_fit_is_told_of() -> None:
    source = source_of(*data(100))
    told: list[int] = []
    selection = select(source, folds=5)
    learning_curve.measure(selection, source, 3, seed=0, memory_mb=1000, advance=told.append)
    assert len(told) == sum(told) == selection.n_folds * len(FRACTIONS)


@pytest.mark.filterwarnings("error")
def test_a_few_images_have_a_curve() -> None:
    source = source_of(*clusters(8, 2))
    for kind in (ridge, lda, knn, mlp, softmax):
        _, points = curve_of(source, kinds=[kind])
        assert np.isfinite([value for point in points for value in point]).all()
        assert [point.n_images for point in points] == [4, 4, 4, 6]  # two of each class at least


def test_the_error_of_a_gain_is_that_of_differences_within_folds_and_not_of_how_folds_differ() -> None:
    """Folds that differ by 40 points hide no gain of 5 points that each of them shows."""
    fold_of, right = np.repeat(np.arange(5), 100), np.zeros((2, 500), bool)
    for fold in range(5):
        right[0, np.flatnonzero(fold_of == fold)[: 50 + 10 * fold]] = True
        right[1, np.flatnonzero(fold_of == fold)[: 55 + 10 * fold + fold % 2]] = True
    gain = gain_of(right[0], right[1], fold_of, np.repeat(np.arange(250), 2))
    each = [0.05, 0.06, 0.05, 0.06, 0.05]
    assert gain.mean == pytest.approx(np.mean(each))
    assert 0.02 < gain.low < 0.04
    uneven = right[1].copy()
    uneven[:100] = True  # a fold gains 50 points
    gain = gain_of(right[0], uneven, fold_of, np.arange(500))
    expected = ttest_1samp([0.5, *each[1:]], 0).confidence_interval(0.95)
    assert gain[1:] == pytest.approx((expected.low, expected.high))


def test_folds_that_agree_by_chance_do_not_make_a_gain_certain() -> None:
    before, fold_of = np.arange(8) % 2 == 0, np.repeat([0, 1], 4)
    nothing = gain_of(before, before, fold_of, np.arange(8))
    assert nothing.mean == 0
    assert nothing.low < -0.1 and nothing.high > 0.1
    after = before.copy()
    after[[1, 5]] = True
    gain = gain_of(before, after, fold_of, np.arange(8))
    assert gain.mean == 0.25
    assert gain.low < 0 < 0.5 < gain.high


def test_the_interval_of_a_gain_covers_it_with_three_folds_of_few_images() -> None:
    """By Student's t alone it covered 61 to 73% with two or three folds of a dozen images."""
    random, fold_of = np.random.default_rng(0), np.repeat(np.arange(3), 4)
    covered = 0
    for _ in range(1000):
        before = random.random(12) < 0.6
        after = np.where(random.random(12) < 0.25, ~before, before)  # wins 0.1, losses 0.15
        gain = gain_of(before, after, fold_of, np.arange(12))
        covered += gain.low <= -0.05 <= gain.high
    assert covered >= 950
