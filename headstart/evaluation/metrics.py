"""Scores of predictions: overall, per class, calibration, intervals. Pure functions of arrays.

Throughout, `labels` and `predicted` are int [N] in 0..C-1, `probabilities` float [N, C] whose rows sum to 1.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from headstart.base.intervals import Interval, n_independent, of_mean

_SMALLEST = float(np.finfo(np.float32).tiny)  # the log loss counts a probability of 0 as this
_DECIMALS = 6


class ClassScores(NamedTuple):
    """One class against all others. A score without a denominator is None, as are all of a class without images."""

    precision: float | None  # None: never predicted
    recall: float | None
    f1: float | None
    support: int  # images of the class; 0: it is absent
    n_predicted: int
    precision_interval: Interval | None = None
    recall_interval: Interval | None = None


class Resampled(NamedTuple):
    """The scores of bootstrap resamples of the images."""

    accuracy: np.ndarray  # float64 [B]
    macro_f1: np.ndarray  # float64 [B]
    precision: np.ndarray  # float32 [B, C]; NaN if a resample has no such prediction
    recall: np.ndarray  # float32 [B, C]; NaN if a resample has no such image


class Evaluation(NamedTuple):
    """All scores of the held-out images."""

    scores: dict[str, float | int]  # rounded to 6 decimals
    per_class: list[ClassScores]  # with intervals


class Bin(NamedTuple):
    """The images whose confidence, the probability of the predicted class, lies in one bin."""

    confidence: float  # mean
    accuracy: float
    n_images: int


class RiskCoverage(NamedTuple):
    """Coverage and risk of a model that abstains below a confidence, for each confidence, highest first."""

    coverage: np.ndarray  # float64 [K], share of the images that are answered
    risk: np.ndarray  # float64 [K], share of these answers that are wrong
    confidence: np.ndarray  # float64 [K], of the least confident answer

    @property
    def aurc(self) -> float:
        """The area under the risk-coverage curve: the mean risk over all coverages; 0 is best."""
        return float((self.risk * np.diff(self.coverage, prepend=0)).sum())


class McNemar(NamedTuple):
    """How two candidates' answers on the same images differ (McNemar 1947), with the exact two-sided p-value."""

    only_first_right: int
    only_second_right: int
    p_value: float  # of a split at least this uneven if neither is better


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Return int [C, C]: the number of images of class `row` that are predicted as `column`."""
    flat = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return flat.reshape(n_classes, n_classes)


def per_class(confusion: np.ndarray) -> list[ClassScores]:
    """Return precision, recall and F1 of each class of a confusion matrix."""
    scores = []
    for right, support, called in zip(confusion.diagonal(), confusion.sum(1), confusion.sum(0), strict=True):
        if support:
            precision = float(right / called) if called else None
            f1 = float(2 * right / (support + called))
            scores.append(ClassScores(precision, float(right / support), f1, int(support), int(called)))
        else:
            scores.append(ClassScores(None, None, None, 0, int(called)))
    return scores


def with_intervals(
    scores: list[ClassScores], resampled: Resampled, labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray
) -> list[ClassScores]:
    """Return `scores` with the 95 % intervals of precision and recall."""

    def interval(samples: np.ndarray, value: float | None, among: np.ndarray) -> Interval | None:
        if value is None:
            return None
        return accuracy_interval(samples[~np.isnan(samples)], value, n_independent(groups[among]))

    return [
        of_class._replace(
            precision_interval=interval(resampled.precision[:, index], of_class.precision, predicted == index),
            recall_interval=interval(resampled.recall[:, index], of_class.recall, labels == index),
        )
        for index, of_class in enumerate(scores)
    ]


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Return the mean recall of the classes that have images."""
    return float(np.mean([scores.recall for scores in per_class(confusion) if scores.recall is not None]))


def balanced_interval(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Interval:
    """Return the interval of balanced accuracy; images count as `n_independent` says."""
    there = np.unique(labels)
    recalls = [float((predicted[labels == label] == label).mean()) for label in there]
    return of_mean(recalls, [n_independent(groups[labels == label]) for label in there])


def macro_f1(confusion: np.ndarray) -> float:
    """Return the mean F1 of the classes that have images or are predicted, as scikit-learn does."""
    return _macro_f1(confusion.diagonal(), confusion.sum(1), confusion.sum(0))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean of -log p(label), in nats."""
    given = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return max(0.0, float(-np.log(np.maximum(given, _SMALLEST)).mean()))  # rounding may give -0.0 or less


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean squared distance to the truth, summed over classes: 0 is best, 2 worst (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - truth).sum(1).mean())


def reliability(labels: np.ndarray, probabilities: np.ndarray, n_bins: int) -> list[Bin]:
    """Return the non-empty bins of equal width, in order of confidence."""
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    at = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return [
        Bin(float(confidence[at == index].mean()), float(right[at == index].mean()), int((at == index).sum()))
        for index in np.unique(at)
    ]


def before_calibration(probabilities: np.ndarray, temperature: float, shift: np.ndarray) -> np.ndarray:
    """Return the probabilities, float64 [N, C], without the temperature.

    `shift`, float [C], was added to the scores after they were divided by it, and stays.
    """
    told = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny).astype(np.float64))
    scores = temperature * (told - shift) + shift
    odds = np.exp(scores - scores.max(1, keepdims=True))
    uncalibrated: np.ndarray = odds / odds.sum(1, keepdims=True)
    return uncalibrated


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the gap between confidence and accuracy, averaged over images (Guo et al. 2017, equation 3)."""
    n_images = sum(each.n_images for each in bins)
    return sum(each.n_images * abs(each.confidence - each.accuracy) for each in bins) / n_images


def top_k_accuracy(labels: np.ndarray, probabilities: np.ndarray, k: int) -> float:
    """Return the fraction of images whose label is among the `k` most probable classes; the lower index wins ties."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(1).mean())


def bootstrap(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, n_classes: int, n_samples: int, seed: int
) -> Resampled:
    """Return the scores of `n_samples` resamples of the images.

    A resample draws whole groups with replacement, as many as there are (Field & Welsh 2007, section 2).
    """
    random = np.random.default_rng(seed)
    names, group_of = np.unique(groups, return_inverse=True)
    right = predicted == labels
    accuracy, f1 = np.zeros(n_samples), np.zeros(n_samples)
    precision, recall = np.full((2, n_samples, n_classes), np.nan, np.float32)
    for sample in range(n_samples):
        drawn = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))[group_of].astype(float)
        supports, calls = (np.bincount(each, drawn, n_classes) for each in (labels, predicted))
        hits = np.bincount(labels, drawn * right, n_classes)
        accuracy[sample] = hits.sum() / drawn.sum()
        f1[sample] = _macro_f1(hits, supports, calls)
        np.divide(hits, calls, out=precision[sample], where=calls > 0, casting="same_kind")
        np.divide(hits, supports, out=recall[sample], where=supports > 0, casting="same_kind")
    return Resampled(accuracy, f1, precision, recall)


def percentile_interval(statistics: np.ndarray) -> Interval:
    """Return the 2.5th and 97.5th percentile of a statistic over resamples (Efron & Tibshirani 1993, section 13.3)."""
    low, high = np.percentile(statistics, [2.5, 97.5])
    return Interval(float(low), float(high))


def centred_interval(statistics: np.ndarray, value: float) -> Interval:
    """Return the percentile interval of a statistic in 0..1, moved so that the mean over resamples is `value`.

    A resample repeats some images and lacks others. That alone lowers macro F1 if classes have few images, and the
    percentile interval may then lie below `value`. With very many tiny classes this interval is still too narrow.
    """
    low, high = percentile_interval(statistics)
    shift = value - float(statistics.mean())
    return Interval(min(max(low + shift, 0.0), value), max(min(high + shift, 1.0), value))


def accuracy_interval(accuracies: np.ndarray, accuracy: float, n: float) -> Interval:
    """Return the interval of an accuracy over resamples.

    If all answers are right (or all wrong), all resamples are equal and a bootstrap would claim certainty. The open
    side is then the exact bound of Clopper & Pearson 1934 for `n` independent images.
    """
    if accuracy == 1:
        return Interval(0.025 ** (1 / n), 1.0)
    if accuracy == 0:
        return Interval(0.0, 1 - 0.025 ** (1 / n))
    return percentile_interval(accuracies)


def share_interval(held: np.ndarray, groups: np.ndarray, n_samples: int, seed: int) -> Interval:
    """Return the interval of a share of images, bool [N], over resamples of whole groups."""
    random = np.random.default_rng(seed)
    names, group_of = np.unique(groups, return_inverse=True)
    hits, sizes = np.bincount(group_of, held), np.bincount(group_of)
    drawn = (random.integers(0, len(names), len(names)) for _ in range(n_samples))
    shares = np.array([hits[some].sum() / sizes[some].sum() for some in drawn])
    return accuracy_interval(shares, float(held.mean()), len(names))


def evaluate(
    labels: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    *,
    majority_label: int,
    bootstrap_samples: int,
    ece_bins: int,
    seed: int,
) -> Evaluation:
    """Return every score on the held-out images.

    `groups` [N]: images of one group are resampled together. `majority_label` is the most frequent class of the
    training images; always predicting it gives `majority_accuracy`. `top5_accuracy` exists only if C > 5.
    """
    n_images, n_classes = probabilities.shape
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted, n_classes)
    accuracy = float((predicted == labels).mean())
    resampled = bootstrap(labels, predicted, groups, n_classes, bootstrap_samples, seed)
    n_groups = len(np.unique(groups))
    of_accuracy = accuracy_interval(resampled.accuracy, accuracy, n_independent(groups))
    of_balanced = balanced_interval(labels, predicted, groups)
    f1 = macro_f1(confusion)
    of_f1 = centred_interval(resampled.macro_f1, f1)
    scores = {
        "accuracy": accuracy,
        "accuracy_low": of_accuracy.low,
        "accuracy_high": of_accuracy.high,
        "balanced_accuracy": balanced_accuracy(confusion),
        "balanced_accuracy_low": of_balanced.low,
        "balanced_accuracy_high": of_balanced.high,
        "macro_f1": f1,
        "macro_f1_low": of_f1.low,
        "macro_f1_high": of_f1.high,
        "log_loss": log_loss(labels, probabilities),
        "brier": brier(labels, probabilities),
        "ece": expected_calibration_error(reliability(labels, probabilities, ece_bins)),
        "aurc": risk_coverage(probabilities.max(1), predicted == labels).aurc,
        "majority_accuracy": float((labels == majority_label).mean()),
    }
    if n_classes > 5:
        scores["top5_accuracy"] = top_k_accuracy(labels, probabilities, 5)
    counts = {"n_images": n_images, "n_groups": n_groups, "n_errors": int((predicted != labels).sum())}
    classes = with_intervals(per_class(confusion), resampled, labels, predicted, groups)
    return Evaluation({name: round(score, _DECIMALS) for name, score in scores.items()} | counts, classes)


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> RiskCoverage:
    """Return the risk of the most confident answers, for every number of them (El-Yaniv & Wiener 2010, section 2).

    `confidence` float [N], `right` bool [N]. Answers of equal confidence are taken together.
    """
    order = np.argsort(-confidence, kind="stable")
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    n_errors, n_answers = np.cumsum(~right[order])[last], last + 1
    coverage, risk = n_answers / len(right), n_errors / n_answers
    return RiskCoverage(coverage, risk, confidence[order][last].astype(np.float64))


def abstain_threshold(confidence: np.ndarray, right: np.ndarray, wanted_accuracy: float) -> float:
    """Return the lowest confidence such that the answers at or above it have `wanted_accuracy`.

    It is 0 if all answers together have it, and 1 if not even the most confident ones do. The arguments are those of
    `risk_coverage`, on images that nothing was fitted on (Geifman & El-Yaniv 2017, section 3, without its bound).
    """
    curve = risk_coverage(confidence, right)
    enough = np.flatnonzero(1 - curve.risk >= wanted_accuracy)
    if not len(enough):
        return 1.0
    return 0.0 if enough[-1] == len(curve.risk) - 1 else float(curve.confidence[enough[-1]])


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """Return the exact test of two models by whether they get each image right, bool [N]."""
    first, second = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1))
    return McNemar(first, second, min(1.0, float(Fraction(2 * tail, 2**n))))


def _macro_f1(hits: np.ndarray, supports: np.ndarray, calls: np.ndarray) -> float:
    some = supports + calls > 0
    return float(np.mean(2 * hits[some] / (supports + calls)[some]))
