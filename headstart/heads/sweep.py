"""Choose a head by cross-validation and fit it on everything.

Memory is bounded by the caller, not by the number of images: what does not fit is read again at every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.base.cores import n_cores
from headstart.heads.calibration import fit_temperature, log_loss
from headstart.heads.contract import Advance, Fitted, Kind
from headstart.heads.design import Budget, Design, Source, scores_of
from headstart.heads.folds import assign_folds, draw

MAX_VALIDATED = 50_000  # images in the cross-validation: more would not make the choice of a strength any surer


class Candidate(NamedTuple):
    """One strength and its figures on held-out images."""

    strength: float
    cv_accuracy: float
    cv_accuracy_std: float  # between folds
    cv_log_loss: float  # nats an image, calibrated by `temperature`
    temperature: float
    chosen: bool


@dataclass(frozen=True)
class Selection:
    """The head that won and the evidence for it."""

    kind: Kind
    head: Fitted  # fitted on all images, calibrated
    candidates: tuple[Candidate, ...]  # in the order of their strengths, weakest first
    validated: np.ndarray  # int [V], the numbers of the images in the cross-validation
    fold_of: np.ndarray  # int [V]
    out_of_fold_logits: np.ndarray  # float64 [V, C] of the chosen strength, uncalibrated

    @property
    def chosen(self) -> Candidate:
        """The candidate that won."""
        return next(candidate for candidate in self.candidates if candidate.chosen)

    @property
    def n_folds(self) -> int:
        """As many as the smallest class allowed."""
        return int(self.fold_of.max()) + 1


def select(
    source: Source,
    groups: np.ndarray,
    n_classes: int,
    *,
    kind: Kind,
    strengths: Sequence[float],
    folds: int,
    seed: int,
    memory_mb: int,
    advance: Advance = lambda n: None,
) -> Selection:
    """Choose a strength by stratified cross-validation that separates no group, then fit on everything.

    `groups` [N]. Views, if `source` has any, are trained on and never scored. The strength with the lowest calibrated
    log loss wins; within a tie the stronger. Where there are more than `MAX_VALIDATED` images, or `memory_mb` of the
    whole process do not hold them, the cross-validation has a drawn part of them, in whole groups.
    `advance` is told of every fit, from several threads: (folds + 1) * len(strengths), if no fold falls away.
    """
    path = sorted(set(strengths), reverse=True)  # each fit starts from its stronger neighbour's
    labels, budget = source.labels, Budget(memory_mb)
    bytes_per_image = source.row_bytes() + 8 * len(path) * n_classes
    validated = draw(labels, groups, min(MAX_VALIDATED, budget.how_many(bytes_per_image)), seed)
    fold_of = assign_folds(labels[validated], groups[validated], folds, seed)
    at_a_time = min(n_cores(), int(fold_of.max()) + 1, budget.how_many(bytes_per_image * len(validated)))

    # Folds in parallel and BLAS on one thread: six times faster than the reverse, and the same bytes on any machine.
    with threadpool_limits(1):
        logits = _out_of_fold(kind, source, n_classes, path, validated, fold_of, at_a_time, advance)
        scored = [_scored(each, labels[validated], fold_of, path[row]) for row, each in enumerate(logits)]
        best = min(range(len(path)), key=lambda row: round(scored[row].cv_log_loss, 6))
        *_, head = kind.fit_path(Design(source, validated, hold=True), n_classes, path[: best + 1], advance=advance)
        advance(len(path) - best - 1)  # what need not be fitted
        if len(validated) < len(labels):
            fits = bytes_per_image * len(labels) <= budget.n_bytes
            design = Design(source, np.arange(len(labels)), hold=fits)  # the part's has left memory
            (head,) = kind.fit_path(design, n_classes, [path[best]], head, advance)
    candidates = [candidate._replace(chosen=row == best) for row, candidate in enumerate(scored)]
    calibrated = head.calibrated(scored[best].temperature)
    return Selection(kind, calibrated, tuple(reversed(candidates)), validated, fold_of, logits[best])


def fit(
    kind: Kind,
    source: Source,
    n_classes: int,
    strength: float,
    images: np.ndarray | None = None,
    *,
    hold: bool = True,
    n_threads: int = 0,
) -> Fitted:
    """Return the uncalibrated head of one strength, fitted on all images or on those of these numbers.

    With `hold` the standardised features stay in memory; else they are read again at every pass. `n_threads` 0: a core
    each.
    """
    with threadpool_limits(1):
        chosen = np.arange(len(source.labels)) if images is None else images
        (head,) = kind.fit_path(Design(source, chosen, hold, n_threads), n_classes, [strength])
        return head


def _out_of_fold(
    kind: Kind,
    source: Source,
    n_classes: int,
    path: Sequence[float],
    validated: np.ndarray,
    fold_of: np.ndarray,
    at_a_time: int,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Return float64 [len(path), V, C]: each image's scores by heads fitted on the other folds."""
    logits = np.zeros((len(path), len(validated), n_classes))

    def cross_validate(fold: int) -> None:
        held_out = fold_of == fold
        design = Design(source, validated[~held_out], hold=True, n_threads=n_cores() // at_a_time)
        for row, head in enumerate(kind.fit_path(design, n_classes, path, advance=advance)):
            logits[row, held_out] = scores_of(head, source.features, validated[held_out])

    with ThreadPoolExecutor(at_a_time) as pool:
        list(pool.map(cross_validate, range(int(fold_of.max()) + 1)))
    return logits


def _scored(logits: np.ndarray, labels: np.ndarray, fold_of: np.ndarray, strength: float) -> Candidate:
    right = logits.argmax(1) == labels
    per_fold = [right[fold_of == fold].mean() for fold in range(fold_of.max() + 1)]
    temperature = fit_temperature(logits, labels)
    return Candidate(
        strength,
        float(right.mean()),
        float(np.std(per_fold)),
        log_loss(logits / temperature, labels),
        temperature,
        chosen=False,
    )
