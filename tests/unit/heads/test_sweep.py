"""Which head is chosen, and by what."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax as probability
from sklearn import metrics

from headstart.heads import (
    knn,
    lda,
    members,
    mlp,
    prototype,
    ridge,
    softmax,
    svm,
)
from headstart.heads.contract import PLAIN, Fitted, Kind, Training
from headstart.heads.criteria import CRITERIA
from headstart.heads.kinds import KINDS
from headstart.heads.linear import Linear
from tests.support.heads import (
    TWO,
    clusters,
    level_sets,
    select,
    source_of,
    two_levels,
    with_noise,
)

ALL = [*KINDS.values()]


def test_every_candidate_is_in_the_table_and_one_is_chosen() -> None:
    features, labels = two_levels()
    selection = select(
        source_of(features, labels), kinds=[ridge, lda, prototype], level_sets=level_sets(TWO, 20), strengths=(0.1, 1.0)
    )
    names = [(each.kind, each.levels, each.n_features, each.strength) for each in selection.candidates]
    blends = [name for name in names if name[0] == "blend"]
    assert [name for name in names if name[0] != "blend"] == [
        *(("ridge", "last", 12, strength) for strength in (0.1, 1.0)),
        *(("lda", "last", 12, share) for share in (0.0, 0.05, 0.2, 0.5, 0.9)),
        ("prototype", "last", 12, 0.0),
        *(("ridge", "other", 14, strength) for strength in (0.1, 1.0)),
        *(("lda", "other", 14, share) for share in (0.0, 0.05, 0.2, 0.5, 0.9)),
        ("prototype", "other", 14, 0.0),
    ]
    assert len(blends) <= 1
    assert sum(each.chosen for each in selection.candidates) == 1
    assert [each.is_best for each in selection.candidates if each.kind == "prototype"] == [True, True]
    assert sum(each.is_best for each in selection.candidates if each.kind == "ridge") == 2
    for each in selection.candidates:
        assert each.n_numbers == (each.n_features + 1) * 3
        assert each.cv_accuracy_se > 0
        assert each.cv_log_loss_se > 0
        assert (each.nested_accuracy is not None) == each.is_best


def test_figures_are_those_of_the_out_of_fold_scores() -> None:
    features, labels = two_levels()
    selection = select(source_of(features, labels))
    chosen, found = selection.chosen, probability(selection.out_of_fold, axis=1)
    right = found.argmax(1) == labels
    assert chosen.cv_accuracy == pytest.approx(right.mean())
    assert chosen.cv_accuracy_se == pytest.approx(right.std(ddof=1) / len(labels) ** 0.5, rel=1e-2)
    assert chosen.cv_log_loss == pytest.approx(metrics.log_loss(labels, found))
    assert chosen.temperature == selection.temperature
    assert selection.n_folds == 4
    assert sorted(np.bincount(selection.fold_of)) == [60] * 4


def test_the_head_is_fitted_on_all_images_and_calibrated() -> None:
    features, labels = two_levels()
    source = source_of(features, labels)
    selection = select(source, kinds=[softmax])
    own = members.fit(selection.members, source, 3, Training(), memory_mb=1000)
    expected = own.scores(features) / selection.temperature
    assert np.array_equal(selection.columns, np.arange(20))
    assert np.allclose(selection.head.scores(features), expected)


def test_calibration_lowers_the_out_of_fold_log_loss_or_leaves_it() -> None:
    features, labels = two_levels()
    selection = select(source_of(features, labels))
    raw = metrics.log_loss(labels, probability(selection.out_of_fold * selection.temperature, axis=1))
    assert selection.chosen.cv_log_loss <= raw + 1e-9


def test_noise_is_not_learned() -> None:
    features = np.random.default_rng(0).normal(size=(200, 100)).astype(np.float32)
    selection = select(source_of(features, np.arange(200) % 2), kinds=[softmax], strengths=[1e-4, 1e2])
    assert selection.chosen.strength == 1e2
    assert all(abs(each.cv_accuracy - 0.5) < 0.15 for each in selection.candidates)
    assert selection.nested is not None
    assert selection.nested.interval.low < 0.5 < selection.nested.interval.high


@pytest.mark.parametrize("kinds", [[ridge], [softmax], [ridge, lda, prototype, softmax, svm]], ids=str)
def test_a_level_of_noise_is_not_chosen(kinds: list[Kind]) -> None:
    features, labels = with_noise(150), clusters(240, 3)[1]
    levels = {"last": slice(150), "known": slice(150, 162), "everything": slice(162)}
    selection = select(source_of(features, labels), kinds=kinds, level_sets=level_sets(levels, 162))
    assert selection.chosen.levels == "known"
    assert selection.columns.tolist() == list(range(150, 162))
    assert selection.head.n_features == 12


def test_a_level_that_helps_is_chosen_though_it_costs_features() -> None:
    features, labels = clusters(600)
    levels = level_sets({"little": slice(3), "everything": slice(12)}, 12)
    assert select(source_of(features, labels), level_sets=levels).chosen.levels == "everything"


def test_of_two_that_chance_does_not_tell_apart_the_one_with_fewer_features_is_chosen() -> None:
    features, labels = clusters(200)
    twice = np.concatenate([features, features[:, :1]], axis=1)
    levels = level_sets({"more": slice(13), "fewer": slice(12)}, 13)
    assert select(source_of(twice, labels), level_sets=levels).chosen.levels == "fewer"


def test_a_network_is_chosen_only_where_no_gemm_is_as_good() -> None:
    labels = np.arange(400) % 2
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, 400)
    rings = np.stack([np.cos(angle), np.sin(angle)], 1) * (1 + 2 * labels)[:, None] + random.normal(0, 0.2, (400, 2))
    selection = select(source_of(rings.astype(np.float32), labels), kinds=[ridge, mlp, knn], folds=3)
    assert selection.chosen.kind in ("mlp", "knn")
    assert selection.chosen.cv_accuracy > 0.95
    assert selection.linear is not None
    (member,), temperature = selection.linear
    of_ridge = select(source_of(rings.astype(np.float32), labels), kinds=[ridge], folds=3)
    assert (member.kind, member.strength, temperature) == ("ridge", of_ridge.chosen.strength, of_ridge.temperature)
    alone = select(source_of(rings.astype(np.float32), labels), kinds=[knn], folds=3)
    assert alone.linear is None


def test_a_head_that_is_one_gemm_is_the_linear_one_too() -> None:
    selection = select(source_of(*clusters(200)), kinds=ALL)
    assert isinstance(selection.head, Linear)
    assert selection.linear == (selection.members, selection.temperature)


def test_a_blend_is_chosen_where_it_is_better_and_is_one_gemm() -> None:
    labels = np.arange(600) % 4
    random = np.random.default_rng(5)
    features = random.normal(size=(600, 60)).astype(np.float32)
    for label, columns in enumerate((slice(6), slice(6, 12), slice(30, 36), slice(36, 42))):
        features[labels == label, columns] += 1
    levels = level_sets({"last": slice(30), "other": slice(30, 60)}, 60)
    source = source_of(features, labels)
    selection = select(source, level_sets=levels, kinds=[ridge, lda])
    assert selection.chosen.kind == "blend"
    assert selection.chosen.n_features == 60
    assert selection.chosen.n_numbers == 61 * 4
    assert isinstance(selection.head, Linear)
    assert {member.levels for member in selection.members} == {("last",), ("other",)}
    assert sum(member.weight for member in selection.members) == pytest.approx(1)
    expected = sum(
        member.weight
        / member.temperature
        * members.fit([member], source, 4, Training(), memory_mb=1000).scores(features[:, member.columns])
        for member in selection.members
    )
    found = selection.head.scores(features[:, selection.columns])
    assert np.allclose(found, expected / selection.temperature)
    single = select(source, level_sets=levels, kinds=[ridge, lda], with_blend=False)
    assert single.chosen.kind != "blend"
    assert single.chosen.cv_log_loss > selection.chosen.cv_log_loss


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_best_of_a_family_is_the_best_by_the_criterion(criterion: str) -> None:
    features, labels = two_levels(noise=4)
    labels = np.where(labels == 2, np.where(np.arange(240) % 4 == 0, 2, 0), labels)
    strengths = (10.0, 1.0, 0.1, 1e-3)
    source = source_of(features, labels)
    selection = select(source, criterion=criterion, strengths=strengths, is_nested=False)
    figure = {}
    for strength in strengths:
        scores = select(source, strengths=(strength,), is_nested=False).out_of_fold
        calls = scores.argmax(1)
        figure[strength] = {
            "log_loss": metrics.log_loss(labels, probability(scores, axis=1)),
            "accuracy": -metrics.accuracy_score(labels, calls),
            "balanced_accuracy": -metrics.balanced_accuracy_score(labels, calls),
            "macro_f1": -metrics.f1_score(labels, calls, average="macro"),
        }[criterion]
    best = min(figure.values())
    assert figure[selection.chosen.strength] == pytest.approx(best, abs=1e-6)
    assert selection.chosen.strength == max(key for key, value in figure.items() if value < best + 1e-6)


def unlike_classes(rare: int = 30, often: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Return features [N, 8] and labels of two classes that overlap."""
    labels = np.repeat([0, 1], [often, rare])
    features = np.random.default_rng(0).normal(size=(len(labels), 8)) + 0.7 * labels[:, None]
    return features.astype(np.float32), labels


def recall(head: Fitted, features: np.ndarray, labels: np.ndarray) -> float:
    return float((head.scores(features).argmax(1) == labels)[labels == 1].mean())


def test_logit_adjustment_raises_the_recall_of_a_rare_class() -> None:
    features, labels = unlike_classes()
    source = source_of(features, labels)
    plain, half, whole = (
        select(source, kinds=[softmax], strengths=(0.1,), adjustment=adjustment) for adjustment in (0.0, 0.5, 1.0)
    )
    found = [recall(each.head, features, labels) for each in (plain, half, whole)]
    assert found[0] + 0.2 < found[1] + 0.1 < found[2]
    assert not plain.shift.any()
    assert np.allclose(whole.shift, -np.log([600.5 / 631, 30.5 / 631]))
    assert np.allclose(whole.head.scores(features), plain.head.scores(features) + whole.shift)
    assert np.allclose(whole.out_of_fold, plain.out_of_fold + whole.shift)
    balanced = [(each.out_of_fold.argmax(1) == labels)[labels == 1].mean() for each in (plain, whole)]
    assert balanced[1] > balanced[0] + 0.2


@pytest.mark.parametrize("kind", [ridge, softmax, lda], ids=lambda kind: kind.NAME)
def test_class_weights_raise_the_recall_of_a_rare_class(kind: Kind) -> None:
    features, labels = unlike_classes()
    weights = np.array([1.0, 20.0])
    plain, weighted = (
        select(source_of(features, labels, class_weights=given), kinds=[kind], is_nested=False)
        for given in (None, weights)
    )
    assert recall(weighted.head, features, labels) > recall(plain.head, features, labels) + 0.2
    held_out = [(each.out_of_fold.argmax(1) == labels)[labels == 1].mean() for each in (plain, weighted)]
    assert held_out[1] > held_out[0] + 0.2


@pytest.mark.slow
def test_smoothed_labels_change_softmax_and_the_network_alone() -> None:
    source = source_of(*two_levels(120))
    for kind in ALL:
        plain, smoothed = (
            select(source, kinds=[kind], training=Training(spread), strengths=(0.1,), is_nested=False).out_of_fold
            for spread in (0.0, 0.2)
        )
        assert np.array_equal(plain, smoothed) == (kind not in (softmax, mlp))


def test_a_few_separable_images_leave_fine_tuning_something_to_learn() -> None:
    """A head that is sure of everything has a gradient of zero."""
    features, labels = clusters(12, 2, 320, noise=0.3)
    selection = select(source_of(features, labels), kinds=[softmax, ridge, svm], strengths=(10.0, 1.0, 0.1))
    assert selection.chosen.cv_accuracy == 1
    assert selection.linear is not None
    few, temperature = selection.linear
    assert 0.2 < temperature < 1.5
    head = members.fit(few, source_of(features, labels), 2, PLAIN, memory_mb=1000).calibrated(temperature)
    unsure = 1 - probability(head.scores(features), axis=1)[np.arange(12), labels]
    assert unsure.mean() > 1e-3


def test_a_temperature_that_runs_into_its_bound_does_not_ship() -> None:
    """With one image of a class, linear discriminant analysis cannot know the spread within classes."""
    features, labels = clusters(598, 299, 64, noise=2.0)
    selection = select(source_of(features, labels), kinds=[lda])
    assert selection.n_folds == 2
    assert selection.calibration.outcome == "at its bound"
    assert selection.temperature == selection.chosen.temperature == 1
    read = members.scores_of(selection.head, source_of(features, labels), np.arange(598))
    plain = members.fit(selection.members, source_of(features, labels), 299, PLAIN, memory_mb=1000)
    assert np.allclose(read, plain.scores(features))
