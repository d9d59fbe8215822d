from __future__ import annotations

import numpy as np
import pytest
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
    np.testing.assert_allclose(shift._aucs(components, sides, folds)[0], expected, atol=1e-9)


def test_too_few_images_give_no_answer() -> None:
    features, _ = drawn(0)
    assert shift.two_sample(features, LEVELS, LABELS, GROUPS, np.arange(N) < 5, 0) is None


def test_a_drop_of_accuracy_is_told_from_chance() -> None:
    draw = np.random.default_rng(0)
    known, groups = draw.random(300) < 0.9, np.arange(300).astype(str)
    alike, worse = draw.random(100) < 0.9, draw.random(100) < 0.7
    assert shift.drop(known, groups, alike, groups[:100]).p_value > 0.05
    assert shift.drop(known, groups, worse, groups[:100]).p_value < 0.01
    in_groups = np.repeat(np.arange(5), 20).astype(str)  # one of five subjects is wrong altogether
    one_bad = in_groups != "3"
    assert shift.drop(known, groups, one_bad, in_groups).p_value > 0.01


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
