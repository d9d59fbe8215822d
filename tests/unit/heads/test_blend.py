from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import blend, members, ridge, softmax
from headstart.heads.calibration import fit_temperature, log_loss
from headstart.heads.contract import PLAIN
from headstart.heads.linear import Linear, weighted_sum
from headstart.heads.members import Member
from tests.support.heads import clusters, source_of


def told(labels: np.ndarray, n_classes: int, knows: np.ndarray, seed: int) -> np.ndarray:
    """Return calibrated scores [N, C] of a head that tells the classes that it knows, and guesses at others."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(len(labels), n_classes)) + 3 * np.eye(n_classes)[labels] * knows[labels][:, None]
    calibrated: np.ndarray = scores / fit_temperature(scores, labels)
    return calibrated


def test_weights_find_heads_that_make_up_for_each_other_and_leave_one_that_knows_nothing() -> None:
    labels = np.arange(600) % 4
    heads = np.stack(
        [
            told(labels, 4, np.array(knows), seed)
            for seed, knows in enumerate(([1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]))
        ]
    )
    found = blend.weights(heads, labels)
    assert found.sum() == pytest.approx(1)
    assert 0.3 < found[0] < 0.7
    assert 0.3 < found[1] < 0.7
    assert found[2] < 0.1
    mixed = np.einsum("m,mnc->nc", found, heads)
    assert log_loss(mixed, labels) < min(log_loss(each, labels) for each in heads) - 0.05


def test_a_head_that_is_better_than_any_mean_stays_alone() -> None:
    labels = np.arange(600) % 4
    random = np.random.default_rng(0)
    good = told(labels, 4, np.ones(4), 0)
    heads = np.stack([random.normal(size=good.shape) * 3, good, -good])
    assert blend.weights(heads, labels).tolist() == [0, 1, 0]
    assert blend.weights(heads[1:2], labels).tolist() == [1]


def test_the_first_of_two_that_are_alike_is_taken() -> None:
    labels = np.arange(200) % 4
    good = told(labels, 4, np.ones(4), 0)
    assert blend.weights(np.stack([good, good]), labels).tolist() == [1, 0]


def test_very_many_images_are_blended_by_some_of_them() -> None:
    labels = np.arange(30_000) % 3
    heads = np.stack([told(labels, 3, np.array(knows), seed) for seed, knows in enumerate(([1, 1, 0], [0, 1, 1]))])
    few = blend.weights(heads[:, ::8], labels[::8])
    assert np.abs(blend.weights(heads, labels) - few).max() < 0.2


def test_a_weighted_sum_of_heads_is_one_head_whose_scores_are_the_weighted_sum() -> None:
    random = np.random.default_rng(0)
    columns = [np.array([0, 2, 3]), np.array([1, 2])]
    heads = [Linear(random.normal(size=(len(some), 4)), random.normal(size=4)) for some in columns]
    features = random.normal(size=(10, 5))
    found = weighted_sum(heads, [0.25, 0.75], columns, 5)
    expected = 0.25 * heads[0].scores(features[:, columns[0]]) + 0.75 * heads[1].scores(features[:, columns[1]])
    assert np.allclose(found.scores(features), expected)
    assert found.n_features == 5


def test_the_members_of_a_blend_are_fitted_each_on_its_columns_and_read_together() -> None:
    features, labels = clusters(n_features=12)
    source = source_of(features, labels)
    parts = [
        Member(softmax.NAME, ("a",), np.array([1, 2, 5, 9]), 0.1, 0.8, 0.4),
        Member(ridge.NAME, ("b",), np.array([2, 7, 9, 11]), 1.0, 1.5, 0.6),
    ]
    columns = members.columns_of(parts)
    assert columns.tolist() == [1, 2, 5, 7, 9, 11]
    head = members.fit(parts, source, 4, PLAIN, memory_mb=1000)
    assert isinstance(head, Linear)
    alone = [members.fit([part], source, 4, PLAIN, memory_mb=1000) for part in parts]
    expected = sum(
        part.weight / part.temperature * own.scores(features[:, part.columns])
        for part, own in zip(parts, alone, strict=True)
    )
    assert np.allclose(head.scores(features[:, columns]), expected)
    some = np.array([3, 1, 2])
    assert np.array_equal(members.scores_of(head, source.at(columns), some), head.scores(features[some][:, columns]))


def test_a_head_is_fitted_on_the_images_that_are_named_held_or_not() -> None:
    features, labels = clusters()
    part, some = Member(ridge.NAME, ("last",), np.arange(12), 0.1, 1.0, 1.0), np.arange(0, 400, 3)
    fit = [
        members.fit([part], source_of(features, labels), 4, PLAIN, memory_mb=memory_mb, images=some)
        for memory_mb in (1000, 0)
    ]
    alone = members.fit([part], source_of(features[some], labels[some]), 4, PLAIN, memory_mb=1000)
    for head in fit:
        assert np.allclose(head.scores(features), alone.scores(features), atol=1e-5)
