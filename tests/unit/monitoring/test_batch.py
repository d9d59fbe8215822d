"""A batch beside the held-out images: the test is exact, the class mix and the accuracy are found without labels."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.monitoring import batch, reference
from headstart.monitoring.scores import doubts, levels, signature


def test_the_two_sample_test_is_exact_where_nothing_differs_and_sees_what_does() -> None:
    draw = np.random.default_rng(0)
    alike = [batch.two_sample(draw.normal(size=(20, 3)), draw.normal(size=(30, 3)), seed) for seed in range(100)]
    share = float(np.mean([each.p_value <= 0.1 for each in alike if each]))
    assert 0.02 <= share <= 0.2
    apart = batch.two_sample(draw.normal(1.5, 1, (20, 3)), draw.normal(size=(30, 3)), 0)
    wide = batch.two_sample(draw.normal(0, 4, (40, 3)), draw.normal(size=(60, 3)), 0)
    assert apart is not None
    assert wide is not None
    assert apart.p_value == wide.p_value == 1 / 500
    assert batch.two_sample(np.zeros((1, 3)), draw.normal(size=(30, 3)), 0) is None


def test_the_two_sample_test_treats_new_and_known_images_alike() -> None:
    """With mean and scale of the known rows alone, 3 known and 8 new ones had p <= 0.05 in 14% of trials."""
    draw = np.random.default_rng(1)
    low = 0
    for seed in range(150):
        tested = batch.two_sample(draw.normal(size=(8, 3)), draw.normal(size=(3, 3)), seed)
        assert tested is not None
        low += tested.p_value <= 0.05
    assert low <= 13, "150 x 0.05, and two standard deviations"
    some, others = draw.normal(0, 3, (8, 3)), draw.normal(size=(5, 3))
    one, other = batch.two_sample(some, others, 0), batch.two_sample(others, some, 0)
    assert one is not None
    assert other is not None
    assert one.mmd2 == pytest.approx(other.mmd2)


def test_rows_are_rounded_as_those_of_the_file_are() -> None:
    """Else a column that is constant but for its last digits tells new images from known ones."""
    draw = np.random.default_rng(2)
    known = np.concatenate([draw.normal(size=(30, 2)), np.full((30, 1), 0.333)], 1)
    rows = np.concatenate([draw.normal(size=(30, 2)), np.full((30, 1), 1 / 3)], 1)
    rounded = np.round(rows, 3)
    assert batch.two_sample(rows, np.round(known, 3), 0) == batch.two_sample(rounded, np.round(known, 3), 0)


def gaussian(shares: list[float], n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels, and probabilities that are calibrated for equal shares, of two overlapping classes."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(2, n_images, p=shares)
    values = draw.normal(2.0 * labels - 1, 1.0)
    right = 1 / (1 + np.exp(-2 * values))
    return labels, np.stack([1 - right, right], 1)


def test_the_class_mix_is_found_where_only_the_mix_has_changed() -> None:
    _, before = gaussian([0.5, 0.5], 2000, 0)
    labels, now = gaussian([0.1, 0.9], 1000, 1)
    found = batch.class_mix(now, before.mean(0), 0)
    assert found[1].share == pytest.approx(labels.mean(), abs=0.03)
    assert found[1].low < labels.mean() < found[1].high
    assert found[1].high - found[1].low < 0.1
    assert abs(now.mean(0)[1] - labels.mean()) > 0.05, "counting probabilities would not do"


def test_intervals_of_the_class_mix_hold_the_true_share_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        found = batch.class_mix(gaussian([0.3, 0.7], 150, seed)[1], np.array([0.5, 0.5]), seed)
        held += found[1].low <= 0.7 <= found[1].high
    assert held >= 34


def test_the_accuracy_follows_the_confidence() -> None:
    draw = np.random.default_rng(2)
    labels, before = gaussian([0.5, 0.5], 1500, 2)
    known = reference.of({"probabilities": before, "novelty": draw.uniform(size=1500)}, labels, 0.0, 0.99, "")
    labels, now = gaussian([0.5, 0.5], 800, 3)
    same = batch.accuracy(now.max(1), known)
    assert same.low < (now.argmax(1) == labels).mean() < same.high
    harder = 0.5 + (now.max(1) - 0.5) / 2
    assert batch.accuracy(harder, known).high < same.accuracy


def test_levels_keep_the_order_of_doubt_where_probabilities_round_to_one() -> None:
    sure = np.array([[1.0, 1e-7, 1e-9], [1.0, 1e-5, 0.0], [0.6, 0.3, 0.1]], np.float32)
    assert (np.diff(doubts(sure)) > 0).all()
    found = levels({"probabilities": sure, "novelty": np.array([0.0, 0.5, 1.0], np.float32)})
    assert (np.diff(found["confidence"]) > 0).all()
    assert found["novelty"].tolist() == [0, 500, 1000]


def test_many_classes_are_compared_by_few_columns() -> None:
    draw = np.random.default_rng(0)
    said = {"probabilities": draw.dirichlet(np.ones(300), 7), "novelty": np.zeros(7)}
    assert signature(said, 16).shape == (7, 17)
    assert signature(said, 16) == pytest.approx(signature(said, 16))
