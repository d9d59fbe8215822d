"""Whether more labels would help: the head's accuracy on images it has not seen, by how many it learned from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.base.cores import n_cores

if TYPE_CHECKING:
    from headstart.heads import sweep

FRACTIONS = (0.1, 0.25, 0.5)  # of what the whole cross-validation learns from; that itself is the last point


class Point(NamedTuple):
    """Cross-validation with a part of the images to learn from, and all of them to be asked about."""

    fraction: float
    n_images: int  # learned from, mean over folds
    accuracy: float
    accuracy_std: float  # between folds
    log_loss: float  # nats an image


def measure(
    features: sweep.Rows,
    labels: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    selection: sweep.Selection,
    *,
    seed: int,
    memory_mb: int,
    views: sweep.Rows | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Point]:
    """Return a point a fraction, the whole last. Arguments as of `sweep.select`, which has returned `selection`.

    The folds, the strength and the temperature are those of the selection. A smaller part would want a stronger
    penalty, so the curve is a little too steep. Parts are drawn in whole groups, a smaller one lies within a
    larger one, and each has two groups of every class at least. `advance` is told of n_folds * len(FRACTIONS) fits.
    """
    from scipy.special import log_softmax
    from threadpoolctl import threadpool_limits

    from headstart.heads import sweep

    validated, fold_of, n_folds = selection.validated, selection.fold_of, selection.n_folds
    strength, temperature = selection.head.strength, selection.head.temperature
    jobs = [(row, fold) for row in range(len(FRACTIONS)) for fold in range(n_folds)]
    logits = np.zeros((len(FRACTIONS) + 1, len(validated), n_classes))
    logits[-1] = selection.out_of_fold_logits
    n_learned = np.zeros((len(FRACTIONS) + 1, n_folds))
    n_learned[-1] = [int((fold_of != fold).sum()) for fold in range(n_folds)]

    def fit(job: tuple[int, int]) -> None:
        row, fold = job
        others, held_out = validated[fold_of != fold], validated[fold_of == fold]
        n_wanted = max(1, round(FRACTIONS[row] * len(others)))
        part = others[sweep.draw(labels[others], groups[others], n_wanted, seed)]
        weight, bias = sweep.fit(features, labels, n_classes, strength, views, images=part, n_threads=1)
        logits[row, fold_of == fold] = sweep.scores(features, held_out, weight, bias)
        n_learned[row, fold] = len(part)
        advance(1)

    per_image = 1 + (views.shape[1] if views is not None else 0)
    largest = 4e-6 * per_image * features.shape[1] * len(validated) / 2
    at_a_time = int(min(n_cores(), max(1, (memory_mb - sweep.PROCESS_MB) // max(largest, 1e-6))))
    with threadpool_limits(1), ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(fit, jobs))
    truth = labels[validated]
    points = []
    for row, fraction in enumerate((*FRACTIONS, 1.0)):
        right = logits[row].argmax(1) == truth
        log_p = log_softmax(logits[row] / temperature, axis=1)
        per_fold = [right[fold_of == fold].mean() for fold in range(n_folds)]
        loss = -log_p[np.arange(len(truth)), truth].mean()
        points.append(
            Point(fraction, round(n_learned[row].mean()), float(right.mean()), float(np.std(per_fold)), float(loss))
        )
    return points
