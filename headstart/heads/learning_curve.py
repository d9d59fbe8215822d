"""Whether more labels would help: held-out accuracy by the number of training images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.base.cores import n_cores
from headstart.heads.calibration import log_loss
from headstart.heads.contract import Advance
from headstart.heads.design import Budget, Source, scores_of
from headstart.heads.folds import draw
from headstart.heads.sweep import Selection, fit

FRACTIONS = (0.1, 0.25, 0.5)  # of what the whole cross-validation learns from; that itself is the last point


class Point(NamedTuple):
    """Cross-validated figures of heads that were fitted on a part of the images."""

    fraction: float
    n_images: int  # learned from, mean over folds
    accuracy: float
    accuracy_std: float  # between folds
    log_loss: float  # nats an image


def measure(
    source: Source,
    groups: np.ndarray,
    n_classes: int,
    selection: Selection,
    *,
    seed: int,
    memory_mb: int,
    advance: Advance = lambda n: None,
) -> list[Point]:
    """Return a point for each fraction, the whole last. Arguments as of `sweep.select`, which returned `selection`.

    The folds, the strength and the temperature are those of the selection. A smaller part would want a stronger
    penalty, so the curve is a little too steep. Parts are drawn in whole groups, a smaller one lies within a
    larger one, and each has two groups of every class at least. `advance` is told of n_folds * len(FRACTIONS) fits.
    """
    labels, validated, fold_of = source.labels, selection.validated, selection.fold_of
    jobs = [(row, fold) for row in range(len(FRACTIONS)) for fold in range(selection.n_folds)]
    logits = np.zeros((len(FRACTIONS) + 1, len(validated), n_classes))
    logits[-1] = selection.out_of_fold_logits
    n_learned = np.zeros((len(FRACTIONS) + 1, selection.n_folds))
    n_learned[-1] = [int((fold_of != fold).sum()) for fold in range(selection.n_folds)]

    def learn(job: tuple[int, int]) -> None:
        row, fold = job
        others, held_out = validated[fold_of != fold], validated[fold_of == fold]
        n_wanted = max(1, round(FRACTIONS[row] * len(others)))
        part = others[draw(labels[others], groups[others], n_wanted, seed)]
        head = fit(selection.kind, source, n_classes, selection.chosen.strength, part, n_threads=1)
        logits[row, fold_of == fold] = scores_of(head, source.features, held_out)
        n_learned[row, fold] = len(part)
        advance(1)

    largest = source.row_bytes() * len(validated) / 2
    with threadpool_limits(1), ThreadPoolExecutor(min(n_cores(), Budget(memory_mb).how_many(largest))) as pool:
        list(pool.map(learn, jobs))
    points = []
    for row, fraction in enumerate((*FRACTIONS, 1.0)):
        right = logits[row].argmax(1) == labels[validated]
        per_fold = [right[fold_of == fold].mean() for fold in range(selection.n_folds)]
        loss = log_loss(logits[row] / selection.chosen.temperature, labels[validated])
        points.append(Point(fraction, round(n_learned[row].mean()), float(right.mean()), float(np.std(per_fold)), loss))
    return points
