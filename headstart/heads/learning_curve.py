"""Whether more labels would help: held-out accuracy by the number of training images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from threadpoolctl import threadpool_limits

from headstart.base.cores import n_cores
from headstart.base.intervals import Z, n_independent, wilson
from headstart.heads import members
from headstart.heads.calibration import log_loss
from headstart.heads.contract import Advance
from headstart.heads.design import Budget, Source
from headstart.heads.folds import draw
from headstart.heads.power_law import Forecast, forecast
from headstart.heads.sweep import Selection
from headstart.onnx.head_folder import ForecastRecord, LearningRecord

FRACTIONS = (0.1, 0.25, 0.5)  # of what the whole cross-validation learns from; that itself is the last point


class Point(NamedTuple):
    """Cross-validated figures of heads that were fitted on a part of the images."""

    fraction: float
    n_images: int  # learned from, mean over folds
    accuracy: float
    accuracy_low: float  # 95 % interval
    accuracy_high: float
    log_loss: float  # nats an image


class Gain(NamedTuple):
    """By how much accuracy rises from half of the images to all of them, with a 95 % interval."""

    mean: float
    low: float
    high: float


class Curve(NamedTuple):
    """What was measured, and what more images would bring."""

    points: list[Point]
    gain: Gain
    forecast: list[Forecast]  # up to ten times the images; empty where it cannot be told

    @property
    def record(self) -> LearningRecord:
        """The gain and the forecast as they are written."""
        names = ("n_images", "accuracy", "low", "high")
        rounded = [[each.n_images, *(round(value, 6) for value in each[1:])] for each in self.forecast]
        return LearningRecord(
            gain=round(self.gain.mean, 6),
            gain_low=round(self.gain.low, 6),
            gain_high=round(self.gain.high, 6),
            forecast=[ForecastRecord.model_validate(dict(zip(names, each, strict=True))) for each in rounded],
        )


def measure(
    selection: Selection,
    source: Source,
    n_classes: int,
    *,
    seed: int,
    memory_mb: int,
    advance: Advance = lambda n: None,
) -> Curve:
    """Return a point for each fraction, the whole last, and the curve through them.

    The source is that from which `sweep.select` chose.

    The features, the folds, the kind, the strength and the temperature are those of the selection. A smaller part would
    want a stronger penalty, so the curve is a little too steep; the forecast heeds its end most. Parts are drawn in
    whole groups, a smaller one lies within a larger one, and each has two groups of every class at least. `advance` is
    told of n_folds * len(FRACTIONS) fits.
    """
    validated, fold_of = selection.validated, selection.fold_of
    (known, fold_of_known), labels, groups = selection.learned, source.labels, source.groups
    jobs = [(row, fold) for row in range(len(FRACTIONS)) for fold in range(selection.n_folds)]
    scores = np.zeros((len(FRACTIONS) + 1, len(validated), n_classes))
    scores[-1] = selection.out_of_fold
    n_learned = np.zeros((len(FRACTIONS) + 1, selection.n_folds))
    n_learned[-1] = [int((fold_of_known != fold).sum()) for fold in range(selection.n_folds)]

    def learn(job: tuple[int, int]) -> None:
        row, fold = job
        others, held_out = known[fold_of_known != fold], validated[fold_of == fold]
        n_wanted = max(1, round(FRACTIONS[row] * len(others)))
        part = others[draw(labels[others], groups[others], n_wanted, seed)]
        head = members.fit(
            selection.members,
            source,
            n_classes,
            selection.training,
            memory_mb=memory_mb,
            images=part,
            n_threads=1,
        )
        calibrated = head.calibrated(selection.temperature, selection.shift)
        scores[row, fold_of == fold] = members.scores_of(calibrated, source.at(selection.columns), held_out)
        n_learned[row, fold] = len(part)
        advance(1)

    largest = members.fit_bytes(selection.members, source, len(known), n_classes)
    with threadpool_limits(1), ThreadPoolExecutor(min(n_cores(), Budget(memory_mb).how_many(largest))) as pool:
        list(pool.map(learn, jobs))
    right = scores.argmax(2) == labels[validated]
    n_images, n_independent_images = n_learned.mean(1).round(), n_independent(groups[validated])
    points = []
    for row, fraction in enumerate((*FRACTIONS, 1.0)):
        accuracy = float(right[row].mean())
        loss = log_loss(scores[row], labels[validated])
        points.append(Point(fraction, int(n_images[row]), accuracy, *wilson(accuracy, n_independent_images), loss))
    return Curve(
        points,
        gain_of(right[-2], right[-1], fold_of, groups[validated]),
        forecast(n_images, right, groups[validated], seed),
    )


def gain_of(before: np.ndarray, after: np.ndarray, fold_of: np.ndarray, groups: np.ndarray) -> Gain:
    """Return the gain of one head over another on the same images, bool [V] each.

    The interval is Student's t of the differences within each fold: that folds differ in difficulty is no error of the
    difference. Two folds may agree by chance, so it is at least as wide as that of paired shares with half an image
    added to wins and losses (Agresti & Min 2005), groups counted as `n_independent` says.
    """
    folds = np.unique(fold_of)
    each = np.array([after[fold_of == fold].mean() - before[fold_of == fold].mean() for fold in folds])
    mean = float(each.mean())
    by_folds = float(stdtrit(len(folds) - 1, 0.975) * each.std(ddof=1) / len(folds) ** 0.5)
    n = n_independent(groups)
    won, lost = n * float((after & ~before).mean()) + 0.5, n * float((before & ~after).mean()) + 0.5
    margin = max(by_folds, Z * (won + lost - (won - lost) ** 2 / (n + 2)) ** 0.5 / (n + 2))
    return Gain(mean, mean - margin, mean + margin)
