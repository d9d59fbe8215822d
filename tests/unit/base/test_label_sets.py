"""Label sets: the coverage that theory promises, on drawn images."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headstart.base.label_sets import (
    enough_for_a_class,
    least_number,
    mass_above,
    members,
    quantile,
    quantiles,
)

N_CLASSES = 4


def drawn(random: np.random.Generator, n_images: int, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [N, C] probabilities of a classifier that is too sure of itself, and labels int [N]."""
    labels = random.integers(0, N_CLASSES, n_images)
    scores = random.normal(size=(n_images, N_CLASSES)) * 2 + skill * np.eye(N_CLASSES)[labels]
    odds = np.exp(scores)
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32), labels


def own(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found: np.ndarray = mass_above(probabilities)[np.arange(len(labels)), labels]
    return found


def coverage_of(probabilities: np.ndarray, labels: np.ndarray, limits: np.ndarray) -> float:
    return float(members(probabilities, limits)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize(("n_images", "coverage"), [(9, 0.9), (40, 0.5), (57, 0.8), (100, 0.9)])
def test_sets_hold_the_true_label_as_often_as_the_finite_sample_bound_says(n_images: int, coverage: float) -> None:
    """The coverage given the calibration images is Beta(k, n + 1 - k) where scores differ, with k = ceil(c (n + 1))."""
    random = np.random.default_rng(1)
    probabilities, labels = drawn(random, 40_000, skill=0.5)  # right in fewer cases than asked, so few scores are tied
    assert (probabilities.argmax(1) == labels).mean() < 0.45
    scores, groups, found = own(probabilities, labels), np.arange(n_images), []
    population = np.sort(scores)
    for _ in range(1500):
        seen = random.integers(0, len(labels), n_images)
        limits = quantiles(scores[seen], labels[seen], groups, 99, coverage)
        assert limits.shape == (1,)
        found.append(np.searchsorted(population, limits[0], "right") / len(population))
    assert found[-1] == coverage_of(probabilities, labels, limits)
    k = math.ceil(Fraction(str(coverage)) * (n_images + 1))
    beta = stats.beta(k, n_images + 1 - k)
    assert beta.mean() == pytest.approx(k / (n_images + 1))
    assert coverage <= beta.mean() < coverage + 1 / (n_images + 1)
    assert np.mean(found) == pytest.approx(beta.mean(), abs=4 * beta.std() / math.sqrt(len(found)))
    assert np.std(found) == pytest.approx(beta.std(), rel=0.1)
    assert stats.kstest(found, beta.cdf).statistic < 1.63 / math.sqrt(len(found))  # p = 0.01


def test_where_the_label_alone_is_right_more_often_than_asked_sets_are_that_label() -> None:
    random = np.random.default_rng(2)
    probabilities, labels = drawn(random, 2000, skill=12)
    accuracy = (probabilities.argmax(1) == labels).mean()
    assert accuracy > 0.95
    limits = quantiles(own(probabilities, labels), labels, np.arange(2000), N_CLASSES, 0.9)
    held = members(probabilities, limits)
    assert held.sum(1).tolist() == [1] * 2000
    assert coverage_of(probabilities, labels, limits) == accuracy


def test_a_limit_for_each_class_holds_in_each_class_and_one_for_all_does_not() -> None:
    """Class 0 is mistaken far more often than the others."""
    random = np.random.default_rng(3)

    def some(n_images: int) -> tuple[np.ndarray, np.ndarray]:
        easy, labels = drawn(random, n_images, skill=5)
        hard, _ = drawn(random, n_images, skill=0)
        easy[labels == 0] = hard[labels == 0]
        return easy, labels

    probabilities, labels = some(40_000)
    new = own(probabilities, labels)
    of_each, of_all = [], []
    for _ in range(200):
        seen, of_seen = some(400)
        scores, groups = own(seen, of_seen), np.arange(400)
        limits = quantiles(scores, of_seen, groups, N_CLASSES, 0.9)
        assert limits.shape == (N_CLASSES,)
        single = np.array([quantile(scores, groups, 0.9)])
        for into, chosen in ((of_each, limits), (of_all, single)):
            into.append([(new[labels == label] <= chosen[label % len(chosen)]).mean() for label in range(N_CLASSES)])
    assert np.mean(of_each, axis=0).min() > 0.9 - 0.01
    assert np.mean(of_each, axis=0)[0] < 0.93
    assert np.mean(of_all, axis=0)[0] < 0.8


def test_a_class_needs_enough_images_for_a_limit_of_its_own() -> None:
    enough = enough_for_a_class(0.9)
    assert (least_number(0.9), enough) == (9, 49)
    probabilities, _ = drawn(np.random.default_rng(4), 3 * enough, 1)
    labels = np.repeat([0, 1, 2], enough)
    scores = own(probabilities, labels)
    alone, paired = np.arange(3 * enough), np.arange(3 * enough) // 2
    assert quantiles(scores, labels, alone, 3, 0.9).shape == (3,)
    assert quantiles(scores[1:], labels[1:], alone[1:], 3, 0.9).shape == (1,)
    assert quantiles(scores, labels, paired, 3, 0.9).shape == (1,)  # groups count, not images
    assert quantiles(scores, labels, alone, 4, 0.9).shape == (1,)  # one class has no image


def test_a_class_without_a_held_out_image_may_still_be_in_sets() -> None:
    probabilities, labels = drawn(np.random.default_rng(5), 500, skill=1)
    some = labels != 3
    limits = quantiles(own(probabilities[some], labels[some]), labels[some], np.arange(some.sum()), N_CLASSES, 0.9)
    held = members(probabilities, limits)
    assert held[:, 3].any()
    assert held[probabilities.argmax(1) == 3, 3].all()


def test_labels_of_equal_probability_are_in_a_set_together() -> None:
    probabilities = np.array([[0.4, 0.2, 0.4, 0.0], [0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0]], np.float32)
    expected = [[0, 0.8, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]
    assert np.allclose(mass_above(probabilities), expected, atol=1e-7)
    assert members(probabilities, np.array([0.0])).sum(1).tolist() == [2, 4, 1]
    order = [2, 0, 3, 1]
    assert mass_above(probabilities[:, order]).tolist() == mass_above(probabilities)[:, order].tolist()


def test_ties_among_scores_keep_the_coverage() -> None:
    """Every score is 0, 0.4 or 0.8: at least the wanted share of the images lies at the quantile or below."""
    rows = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]], np.float32)
    random = np.random.default_rng(6)
    found = []
    for _ in range(1000):
        labels = random.integers(0, 3, 60)
        probabilities = rows[random.integers(0, 2, 60)]
        scores = own(probabilities, labels)
        limits = np.array([quantile(scores[:59], np.arange(59), 0.6)])
        found.append(coverage_of(probabilities[59:], labels[59:], limits))
    assert np.mean(found) >= 0.6


@pytest.mark.parametrize(("coverage", "least"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_with_too_few_images_every_label_is_in_every_set(coverage: float, least: int) -> None:
    assert least_number(coverage) == least
    probabilities, labels = drawn(np.random.default_rng(7), least, skill=1)
    scores = own(probabilities, labels)
    assert quantile(scores, np.arange(least), coverage) == scores.max()
    assert quantile(scores[1:], np.arange(least)[1:], coverage) == 1
    assert members(probabilities, np.array([1.0])).all()


def test_half_coverage_of_few_images_is_the_middle_one() -> None:
    assert quantile(np.array([0.1, 0.7, 0.3]), np.arange(3), 0.5) == 0.3


def test_images_of_a_group_count_as_alike() -> None:
    """On average over draws, sets hold as often as asked where groups of five images resemble each other closely."""
    random = np.random.default_rng(8)
    naive, careful = [], []
    for _ in range(1000):
        middles = random.random(13)
        scores = np.clip(np.repeat(middles, 5) + random.normal(size=65) * 0.005, 0, 1)
        seen, new = scores[:60], scores[60:]
        careful.append((new <= quantile(seen, np.repeat(np.arange(12), 5), 0.9)).mean())
        naive.append((new <= quantile(seen, np.arange(60), 0.9)).mean())
    assert np.mean(careful) >= 0.9
    assert np.mean(naive) < 0.87


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=20), st.floats(0, 1))
def test_the_most_probable_label_is_in_every_set(odds: list[list[int]], limit: float) -> None:
    probabilities = np.array(odds, np.float32) + 0.5
    probabilities /= probabilities.sum(1, keepdims=True)
    held = members(probabilities, np.array([limit]))
    assert held[np.arange(len(odds)), probabilities.argmax(1)].all()
    above = mass_above(probabilities)
    naive = [[sum(float(p) for p in row if p > each) for each in row] for row in probabilities]
    assert above == pytest.approx(np.array(naive), abs=1e-6)
