from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import hypergeom
from sklearn.metrics import roc_auc_score

from headstart.auditing import shift

N, D = 400, 30
LEVELS = [slice(0, 10), slice(10, D)]
LABELS = np.arange(N) % 3
GROUPS = np.arange(N).astype(str)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(N, D)) + 2 * np.eye(3)[LABELS] @ draw.normal(size=(3, D))
    held_out = np.zeros(N, bool)
    held_out[draw.choice(N, N // 4, replace=False)] = True
    return features, held_out


def test_random_halves_are_called_different_as_rarely_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 60 tests at 10 %, 13 or more alarms would have a probability of 0.8 %."""
    monkeypatch.setattr(shift, "_N_PERMUTATIONS", 99)
    found = []
    for seed in range(60):
        features, held_out = drawn(seed)
        tested = shift.two_sample(features, LEVELS, LABELS, GROUPS, held_out, seed)
        assert tested is not None
        found.append(tested.p_value)
    assert sum(each <= 0.1 for each in found) < 13
    assert np.mean(found) == pytest.approx(0.5, abs=0.15)


def test_another_source_is_noticed_but_another_mix_of_classes_is_none() -> None:
    features, held_out = drawn(0)
    moved = features + 1.5 * held_out[:, None] * (np.arange(D) < 3)
    tested = shift.two_sample(moved, LEVELS, LABELS, GROUPS, held_out, 0)
    assert tested is not None
    assert tested.p_value == 0.001
    assert tested.auc_low > 0.6
    uneven = np.zeros(N, bool)
    uneven[np.flatnonzero(LABELS == 0)[:90]] = True
    uneven[np.flatnonzero(LABELS == 1)[:15]] = True
    mixed = shift.two_sample(features, LEVELS, LABELS, GROUPS, uneven, 0)
    assert mixed is not None
    assert mixed.p_value > 0.01


def test_images_of_one_group_count_once() -> None:
    """Ten images of each subject, all alike: which subjects are held out says nothing about another source."""
    draw = np.random.default_rng(5)
    subjects = np.repeat(np.arange(N // 10), 10)
    labels = subjects % 2
    features = draw.normal(size=(N // 10, D))[subjects] + 0.01 * draw.normal(size=(N, D))
    held_out = np.isin(subjects, draw.choice(N // 10, 12, replace=False))
    tested = shift.two_sample(features, LEVELS, labels, subjects.astype(str), held_out, 0)
    assert tested is not None
    assert tested.p_value > 0.01
    alone = shift.two_sample(features, LEVELS, labels, GROUPS, held_out, 0)
    assert alone is not None
    assert alone.p_value == 0.001  # as if it were four hundred independent images


def test_the_auc_is_scikit_learns() -> None:
    features, held_out = drawn(2)
    components, folds = features[:, :5], np.arange(N) % 5
    sides = np.stack([held_out, ~held_out], 1)
    scores = np.empty(N)
    for fold in range(5):
        inside = folds != fold
        known = components[inside] - components[inside].mean(0)
        gram = known.T @ known
        gram += 1e-2 * np.trace(gram) / 5 * np.eye(5)
        weights = np.linalg.solve(gram, known.T @ (2.0 * held_out[inside] - 1))
        scores[~inside] = (components[~inside] - components[inside].mean(0)) @ weights
    expected = roc_auc_score(held_out, scores)
    np.testing.assert_allclose(shift._aucs(shift._scores(components, sides, folds), sides)[0], expected, atol=1e-9)


def test_many_drawn_as_extreme_end_the_drawing_with_a_p_value_that_is_valid() -> None:
    """Besag & Clifford (1991): twenty as extreme in l drawn give 20 / l."""
    asked = []

    def blocks(share: float) -> Iterator[np.ndarray]:
        draw = np.random.default_rng(0)
        for number in range(10):
            asked.append(number)
            yield draw.random(100) < share

    assert shift._p_value(blocks(0.5)) == pytest.approx(0.5, abs=0.2)
    assert asked == [0]
    assert shift._p_value(blocks(0)) == 1 / 1001
    assert len(asked) == 11


def test_too_few_images_give_no_answer() -> None:
    features, _ = drawn(0)
    assert shift.two_sample(features, LEVELS, LABELS, GROUPS, np.arange(N) < 5, 0) is None


def dropped(known: np.ndarray, held_out: np.ndarray, groups: np.ndarray, labels: np.ndarray | None = None) -> float:
    right, is_held_out = np.concatenate([known, held_out]), np.arange(len(known) + len(held_out)) >= len(known)
    return shift.drop(right, np.zeros(len(right), int) if labels is None else labels, groups, is_held_out).p_value


def test_a_drop_of_accuracy_is_told_from_chance() -> None:
    draw = np.random.default_rng(0)
    known, alone = draw.random(300) < 0.9, np.arange(400).astype(str)
    alike, worse = draw.random(100) < 0.9, draw.random(100) < 0.7
    assert dropped(known, alike, alone) > 0.05
    exact = hypergeom.cdf(worse.sum(), 400, known.sum() + worse.sum(), 100)  # Fisher's
    assert dropped(known, worse, alone) == pytest.approx(exact, abs=0.01)  # three errors of 999 permutations
    assert dropped(known, draw.random(100) < 0.7, alone) < 0.01
    subjects = np.repeat(np.arange(5), 20).astype(str)  # one of five subjects is wrong altogether
    one_bad = subjects != "3"
    assert dropped(known, one_bad, np.concatenate([alone[:300], np.char.add("subject", subjects)])) > 0.01


def test_another_mix_of_classes_is_no_drop() -> None:
    """Most test images are of the harder class, and the head is as good on each class as ever."""
    alarms = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        labels = np.repeat([0, 1, 0, 1], [300, 100, 30, 90])
        right = draw.random(520) < np.where(labels == 0, 0.98, 0.7)
        alarms += dropped(right[:400], right[400:], np.arange(520).astype(str), labels) <= 0.05
    assert alarms <= 6  # of 40 at 5 %, more would have a probability of 1 %


def test_the_interval_of_the_auc_keeps_groups_whole() -> None:
    """Ten images each of 60 subjects, where nothing differs: 95 % of the intervals should hold the half."""
    held = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        subjects = np.repeat(np.arange(60), 10)
        scores = draw.normal(size=60)[subjects] + 0.3 * draw.normal(size=600)
        is_held_out = np.isin(subjects, draw.choice(60, 20, replace=False))
        error = shift._error(scores, is_held_out, subjects)
        held += abs(roc_auc_score(is_held_out, scores) - 0.5) <= 1.96 * error
    assert held >= 88  # fewer would have a probability of 0.4 %
    alone = shift._error(scores, is_held_out, np.arange(600))
    above = np.array([[(one > scores[~is_held_out]).mean()] for one in scores[is_held_out]])
    below = np.array([[(one < scores[is_held_out]).mean()] for one in scores[~is_held_out]])
    assert alone == pytest.approx((above.var(ddof=1) / 200 + below.var(ddof=1) / 400) ** 0.5)  # DeLong's


LOWER = shift.Drop(0.9, 0.75, 0.001)
APART = shift.TwoSample(0.8, 0.75, 0.85, 0.001, 300, 100)


@pytest.mark.parametrize(
    ("apart", "is_lower", "agreements", "series", "said"),
    [
        (None, False, (0.9, 0.9), "", ""),
        (APART, False, (0.9, 0.9), "", "another source"),
        (APART, True, (0.9, 0.7), "4 clusters", "another source"),
        (None, True, (0.9, 0.7), "4 clusters", "images of one subject on both sides of the folds (4 clusters)"),
        (None, True, (0.9, 0.7), "", "labels given by other habits: 70.0% of the test images"),
        (None, True, (0.9, 0.9), "", "if there are patients, bursts or series, give a group"),
    ],
)
def test_the_verdict_names_the_likely_reason_with_the_evidence(
    apart: shift.TwoSample | None, is_lower: bool, agreements: tuple[float, float], series: str, said: str
) -> None:
    found = shift._verdict(LOWER, apart, is_lower, agreements, series)
    assert said in found
    assert bool(found) == bool(said)
    assert ("right on 75.0% of the test images and on 90.0% in cross-validation" in found) == is_lower
    assert ("AUC 0.80" in found) == (apart is not None)
