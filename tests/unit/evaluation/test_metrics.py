from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from headstart.evaluation import metrics


def draw(n: int, n_classes: int, seed: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [N] and probabilities float32 [N, C] that are right more often than not."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_classes, n)
    logits = random.normal(size=(n, n_classes)) + skill * np.eye(n_classes)[labels]
    odds = np.exp(logits)
    return labels, (odds / odds.sum(1, keepdims=True)).astype(np.float32)


def evaluate(labels: np.ndarray, probabilities: np.ndarray, **changes: object) -> dict[str, float | int]:
    options: dict[str, object] = {"majority_label": 0, "bootstrap_samples": 500, "ece_bins": 15, "seed": 0, **changes}
    groups = options.pop("groups", np.arange(len(labels)).astype(str))
    return metrics.evaluate(labels, probabilities, groups, **options).scores  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(2, 8), st.integers(0, 1000))
def test_scores_are_those_of_scikit_learn(n: int, n_classes: int, seed: int) -> None:
    labels, probabilities = draw(n, n_classes, seed)
    predicted, classes = probabilities.argmax(1), np.arange(n_classes)
    confusion = metrics.confusion_matrix(labels, predicted, n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a class is absent
        assert np.array_equal(confusion, sk.confusion_matrix(labels, predicted, labels=classes))
        assert metrics.balanced_accuracy(confusion) == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
        assert metrics.macro_f1(confusion) == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
        assert metrics.log_loss(labels, probabilities) == pytest.approx(
            sk.log_loss(labels, probabilities.astype(np.float64), labels=classes), rel=1e-4
        )
        if n_classes > 2:
            brier = sk.brier_score_loss(labels, probabilities.astype(np.float64), labels=classes, scale_by_half=False)
            assert metrics.brier(labels, probabilities) == pytest.approx(brier, rel=1e-4)
        expected = sk.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    for scores, *theirs in zip(metrics.per_class(confusion), *expected, strict=True):
        ours = [np.nan if value is None else value for value in scores[:3]]
        if scores.support:
            assert ours[:2] == pytest.approx(theirs[:2], nan_ok=True)
            assert scores.f1 == pytest.approx(0 if np.isnan(theirs[2]) else theirs[2])
        assert scores.support == theirs[3]
    if n_classes > 2:
        assert metrics.top_k_accuracy(labels, probabilities, 2) == pytest.approx(
            sk.top_k_accuracy_score(labels, probabilities, k=2, labels=classes)
        )


def test_scores_of_a_small_case_are_those_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], np.float32)
    found = evaluate(labels, probabilities)
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2, abs=1e-6)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean(), abs=1e-6)
    assert found["brier"] == pytest.approx(2 * (0.01 + 0.36 + 0.04 + 0.09) / 4, abs=1e-6)
    assert found["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4, abs=1e-6)
    assert found["majority_accuracy"] == 0.5
    assert (found["n_images"], found["n_groups"], found["n_errors"]) == (4, 4, 1)


def test_top_five_is_told_where_there_are_more_than_five_classes() -> None:
    assert "top5_accuracy" not in evaluate(*draw(50, 5, 0))
    assert evaluate(*draw(50, 6, 0))["top5_accuracy"] >= evaluate(*draw(50, 6, 0))["accuracy"]


def test_a_class_that_is_absent_or_never_predicted_has_no_score_rather_than_a_wrong_one() -> None:
    absent, never, neither = metrics.per_class(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]]))
    assert absent == (None, None, None, 0, 1, None, None)
    assert never == (None, 0.0, 0.0, 1, 0, None, None)
    assert neither == (None, None, None, 0, 0, None, None)


def test_a_sure_mistake_does_not_make_the_log_loss_infinite() -> None:
    assert np.isfinite(metrics.log_loss(np.array([0]), np.array([[0.0, 1.0]], np.float32)))


@pytest.mark.parametrize("sure", [1.0, 1 + 2**-23])
def test_a_perfect_log_loss_is_zero_and_not_minus_zero(sure: float) -> None:
    assert str(metrics.log_loss(np.array([0]), np.array([[sure, 0.0]], np.float32))) == "0.0"


@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(0.5, 1)), st.integers(2, 30))
def test_every_image_is_in_one_bin_of_the_reliability_table(confidence: np.ndarray, n_bins: int) -> None:
    bins = metrics.reliability(np.zeros(len(confidence), int), np.column_stack([confidence, 1 - confidence]), n_bins)
    assert sum(each.n_images for each in bins) == len(confidence)
    assert [each.confidence for each in bins] == sorted(each.confidence for each in bins)


def test_probabilities_that_come_true_have_no_calibration_error() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 50_000)
    labels = (random.random(50_000) > confidence).astype(int)
    bins = metrics.reliability(labels, np.column_stack([confidence, 1 - confidence]), 15)
    assert metrics.expected_calibration_error(bins) < 0.01


def test_the_interval_is_about_that_of_the_binomial() -> None:
    labels, probabilities = draw(400, 3, 0)
    found = evaluate(labels, probabilities, bootstrap_samples=4000)
    half = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400)
    assert found["accuracy_low"] == pytest.approx(found["accuracy"] - half, abs=0.008)
    assert found["accuracy_high"] == pytest.approx(found["accuracy"] + half, abs=0.008)
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]


def test_intervals_cover_the_truth_about_as_often_as_they_promise() -> None:
    covered = 0
    for seed in range(200):
        right = np.random.default_rng(seed).random(100) < 0.8
        probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
        found = evaluate(np.zeros(100, int), probabilities, bootstrap_samples=300, seed=seed)
        covered += found["accuracy_low"] <= 0.8 <= found["accuracy_high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_images_of_one_group_count_as_one_draw() -> None:
    labels, probabilities = draw(60, 3, 0)
    alone = evaluate(labels, probabilities)
    labels, probabilities = np.repeat(labels, 10), np.repeat(probabilities, 10, axis=0)
    apart = evaluate(labels, probabilities)
    grouped = evaluate(labels, probabilities, groups=np.repeat(np.arange(60), 10).astype(str))
    width = lambda found: found["accuracy_high"] - found["accuracy_low"]  # noqa: E731
    assert width(apart) < 0.5 * width(grouped)
    assert width(grouped) == pytest.approx(width(alone), rel=0.15)
    assert (grouped["n_images"], grouped["n_groups"]) == (600, 60)


def test_no_mistake_in_twenty_is_no_certainty() -> None:
    perfect = np.tile([[0.9, 0.1]], (20, 1))
    found = evaluate(np.zeros(20, int), perfect)
    assert (found["accuracy_low"], found["accuracy_high"]) == (round(0.025 ** (1 / 20), 6), 1.0)
    found = evaluate(np.ones(20, int), perfect)
    assert (found["accuracy_low"], found["accuracy_high"]) == (0.0, round(1 - 0.025 ** (1 / 20), 6))


def test_the_interval_of_macro_f1_contains_it_even_with_few_images_a_class() -> None:
    labels, probabilities = draw(2000, 500, 0, skill=4.0)
    predicted, groups = probabilities.argmax(1), np.arange(2000).astype(str)
    resampled = metrics.bootstrap(labels, predicted, groups, 500, 300, 0).macro_f1
    found = evaluate(labels, probabilities, bootstrap_samples=300)
    assert metrics.percentile_interval(resampled).high < found["macro_f1"]  # what the plain interval would say
    assert found["macro_f1_low"] < found["macro_f1"] < found["macro_f1_high"]


@given(arrays(np.float64, 50, elements=st.floats(0, 1)), st.floats(0, 1))
def test_a_centred_interval_contains_the_value_and_stays_within_what_a_score_can_be(
    statistics: np.ndarray, value: float
) -> None:
    low, high = metrics.centred_interval(statistics, value)
    assert 0 <= low <= value <= high <= 1


def test_intervals_narrow_as_images_are_added() -> None:
    few, many = evaluate(*draw(100, 3, 0)), evaluate(*draw(1600, 3, 0))
    for score in ("accuracy", "macro_f1"):
        assert 3 < (few[f"{score}_high"] - few[f"{score}_low"]) / (many[f"{score}_high"] - many[f"{score}_low"]) < 5.5


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    data = draw(200, 4, 0)
    assert evaluate(*data, seed=0) == evaluate(*data, seed=0)
    assert evaluate(*data, seed=0) != evaluate(*data, seed=1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 9), (10, 10), (0, 12), (400, 460)])
def test_mcnemar_is_scipys_exact_binomial_test(first: int, second: int) -> None:
    from scipy.stats import binomtest

    first_right = np.array([True] * first + [False] * second + [True, False] * 5)
    second_right = np.array([False] * first + [True] * second + [True, False] * 5)
    found = metrics.mcnemar(first_right, second_right)
    assert found[:2] == (first, second)
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p_value == pytest.approx(expected)


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(2, 6), st.integers(2, 20), st.integers(0, 1000))
def test_the_calibration_error_is_that_of_torchmetrics(n: int, n_classes: int, n_bins: int, seed: int) -> None:
    labels, probabilities = draw(n, n_classes, seed)
    theirs = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=n_classes, n_bins=n_bins, norm="l1"
    )
    ours = metrics.expected_calibration_error(metrics.reliability(labels, probabilities, n_bins))
    assert ours == pytest.approx(float(theirs), abs=1e-5)


@settings(max_examples=60)
@given(st.integers(1, 60), st.integers(0, 1000), st.booleans())
def test_the_risk_at_a_coverage_is_that_of_the_surest_so_many(n: int, seed: int, with_ties: bool) -> None:
    random = np.random.default_rng(seed)
    confidence, right = random.random(n), random.random(n) < 0.7
    confidence = confidence.round(1) if with_ties else confidence
    curve = metrics.risk_coverage(confidence, right)
    for coverage, risk, least in zip(*curve, strict=True):
        answered = confidence >= least
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx((~right[answered]).mean())
    assert curve.coverage[-1] == 1
    if not with_ties:
        by_hand = np.mean([(~right[np.argsort(-confidence)[:k]]).mean() for k in range(1, n + 1)])
        assert curve.aurc == pytest.approx(by_hand)


def test_the_model_abstains_no_more_than_it_has_to() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([True, True, False, True, True])
    assert metrics.abstain_threshold(confidence, right, 0.8) == 0.0  # all five together
    assert metrics.abstain_threshold(confidence, right, 0.9) == 0.8
    assert metrics.abstain_threshold(confidence, ~right, 0.9) == 1.0  # not even the surest one


def test_intervals_of_a_class_are_about_those_of_the_binomial_and_wider_where_images_come_in_groups() -> None:
    labels, probabilities = draw(600, 3, 1)
    options = {"majority_label": 0, "bootstrap_samples": 2000, "ece_bins": 15, "seed": 0}
    apart = metrics.evaluate(labels, probabilities, np.arange(600), **options).per_class  # type: ignore[arg-type]
    grouped = metrics.evaluate(
        np.repeat(labels, 4),
        np.repeat(probabilities, 4, axis=0),
        np.repeat(np.arange(600), 4),
        **options,  # type: ignore[arg-type]
    ).per_class
    for one, other in zip(apart, grouped, strict=True):
        theirs = binomtest(round(one.recall * one.support), one.support).proportion_ci(method="wilson")
        assert one.recall_interval == pytest.approx((theirs.low, theirs.high), abs=0.02)
        theirs = binomtest(round(one.precision * one.n_predicted), one.n_predicted).proportion_ci(method="wilson")
        assert one.precision_interval == pytest.approx((theirs.low, theirs.high), abs=0.02)
        assert other.recall_interval == pytest.approx(one.recall_interval, abs=0.01)  # four times the images, no surer


def test_a_class_whose_few_images_are_all_right_is_not_said_to_be_certain() -> None:
    labels, probabilities = np.array([0] * 20 + [1] * 3), np.eye(2)[[0] * 20 + [1] * 3]
    options = {"majority_label": 0, "bootstrap_samples": 200, "ece_bins": 15, "seed": 0}
    _, few = metrics.evaluate(labels, probabilities, np.arange(23), **options).per_class  # type: ignore[arg-type]
    assert few.recall_interval == pytest.approx((0.025 ** (1 / 3), 1.0))


def test_a_large_group_does_not_make_the_bound_of_flawless_answers_tight() -> None:
    """Of two groups, one of 99 images: that both were right says little of a third."""
    labels, groups = np.arange(100) % 2, np.repeat([0, 1], [99, 1])
    scores = evaluate(labels, np.eye(2)[labels], groups=groups)
    assert scores["accuracy_low"] < 0.05
    assert scores["balanced_accuracy_low"] < 0.2
