"""Choose a head by cross-validation, say how sure the choice is, and fit it on everything.

Memory is bounded by the caller, not by the number of images: what does not fit is read again at every pass.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.base.cores import n_cores
from headstart.base.errors import ParamError
from headstart.heads import knn, members, plan
from headstart.heads.calibration import Calibration
from headstart.heads.candidates import Candidate, Nested, nested, table
from headstart.heads.contract import Advance, Fitted, Training
from headstart.heads.crossval import Division, Family, fill
from headstart.heads.design import Budget, Source
from headstart.heads.members import Member
from headstart.heads.plan import MAX_VALIDATED as MAX_VALIDATED
from headstart.heads.plan import Settings as Settings
from headstart.heads.view import EVERYTHING, Name, Scores, View


@dataclass(frozen=True)
class Selection:
    """The head that won and the evidence for it."""

    members: tuple[Member, ...]
    calibration: Calibration
    linear: tuple[tuple[Member, ...], float] | None  # both of the best that is one Gemm, if any was tried
    head: Fitted  # fitted on all images, calibrated
    candidates: tuple[Candidate, ...]
    nested: Nested | None  # None with two folds, or where memory does not hold it
    training: Training
    shift: np.ndarray  # float64 [C], added to calibrated scores
    validated: np.ndarray  # int [V], the numbers of the images in the cross-validation
    fold_of: np.ndarray  # int [V]
    others: np.ndarray  # int [U], those of images that its heads learned from, and did not answer
    fold_of_others: np.ndarray  # int [U]
    out_of_fold: np.ndarray  # float64 [V, C], calibrated scores by the chosen candidate

    @property
    def chosen(self) -> Candidate:
        """The candidate that won."""
        return next(candidate for candidate in self.candidates if candidate.chosen)

    @property
    def temperature(self) -> float:
        """What the scores are divided by."""
        return self.calibration.temperature

    @property
    def columns(self) -> np.ndarray:
        """Int [D] of all features, that the head reads."""
        return members.columns_of(self.members)

    @property
    def learned(self) -> tuple[np.ndarray, np.ndarray]:
        """The images that heads of the cross-validation learned from, int, rising, and their folds."""
        images = np.concatenate([self.validated, self.others])
        order = np.argsort(images, kind="stable")
        return images[order], np.concatenate([self.fold_of, self.fold_of_others])[order]

    @property
    def n_folds(self) -> int:
        """As many as the smallest class allowed."""
        return int(self.fold_of.max()) + 1


def select(source: Source, n_classes: int, settings: Settings, advance: Advance = lambda n: None) -> Selection:
    """Choose kind, levels and strength by stratified cross-validation that separates no group, then fit on everything.

    Closed forms are tried on all sets of levels. Costly kinds are tried on the set of the best closed form, and on
    `last` unless closed forms are worse there by more than two standard errors; on all sets, if no closed form is among
    the kinds. Within a kind and its levels the strength with the lowest criterion wins, in a tie the stronger. Of all
    candidates the simplest wins that is within one standard error of the best (Breiman et al. 1984, section 3.4.3; here
    of the paired difference). Simpler is one Gemm than anything else, then fewer features, then a single head than a
    blend, then the earlier of `kinds.KINDS`, then the stronger. Views, if there are any, are trained on and never
    scored.

    Where images are many, a choice within an outer fold looks at those of neighbouring folds alone (`crossval.ENOUGH`).

    The adjustment by the log prior is that of Menon et al. 2021, section 4.1. Where there are more than `MAX_VALIDATED`
    images, or memory does not hold them, the cross-validation has a drawn part of them, in whole groups. `advance` is
    called from several threads.
    """
    settings, division = plan.planned(source, n_classes, settings)
    priors = (np.bincount(source.labels, minlength=n_classes) + 0.5) / (len(source.labels) + 0.5 * n_classes)
    shift = -settings.adjustment * np.log(priors)
    parts = [EVERYTHING, *range(division.n_folds)] if division.is_nested else [EVERYTHING]

    # Folds in parallel and BLAS on one thread: six times faster than the reverse, and the same bytes on any machine.
    with threadpool_limits(1):
        views = _cross_validated(division, parts, shift, settings, advance)
        judging = plan.judging_bytes(division, settings)
        with ThreadPoolExecutor(min(n_cores(), Budget(settings.memory_mb).how_many(judging))) as pool:
            judged = list(pool.map(lambda view: view.candidates(settings.with_blend), views))
        chosen = [view.settled(view.simplest(tried)) for view, tried in zip(views, judged, strict=True)]
    winner = chosen[0]
    linear = [winner] if winner.is_linear else [each for each in judged[0] if each.is_linear]
    tunable = views[0].settled(views[0].simplest(linear)) if linear else None
    assert winner.calibration is not None
    listed, estimated = tuple(table(views, judged, winner)), nested(views, chosen) if division.is_nested else None
    best, calibration, out_of_fold = winner.members, winner.calibration, winner.scores
    best_linear = (tunable.members, tunable.temperature) if tunable else None
    del views, judged, chosen, linear, winner, tunable  # the scores of all heads: the last fit has their memory
    gc.collect()  # views and what they remember of themselves name each other
    left_mb = settings.memory_mb - math.ceil(out_of_fold.nbytes / 1e6)
    head = members.fit(best, source, n_classes, settings.training, memory_mb=left_mb)
    return Selection(
        best,
        calibration,
        best_linear,
        head.calibrated(calibration.temperature, shift),
        listed,
        estimated,
        settings.training,
        shift,
        division.validated,
        division.fold_of,
        division.others,
        division.fold_of_others,
        out_of_fold,
    )


def _cross_validated(
    division: Division, parts: Sequence[int], shift: np.ndarray, settings: Settings, advance: Advance
) -> list[View]:
    """Return views of the out-of-fold scores of all families: first of the closed forms, then of the costly kinds."""
    source = division.source
    each = plan.fit_bytes(source, len(division.validated) + len(division.others), division.n_classes, settings)
    closed, costly = _families(division, settings, False), _families(division, settings, True)
    taken = sum(of.of.nbytes for of in (*closed.values(), *costly.values()))
    at_a_time = min(n_cores(), len(division.left_out()), Budget(settings.memory_mb).how_many(each, taken))
    if not closed and not costly:
        raise ParamError(
            f"train_head.kinds names {knn.NAME} alone, which ships its training images: at most {knn.MAX_NUMBERS:,}"
            f" numbers. These are {len(source.labels):,} images of {source.n_features:,} features. Another kind was"
            " expected. Set train_head.kinds in params.yaml."
        )
    jobs = set(division.left_out())
    fill(division, [(of.family, of.of, jobs) for of in closed.values()], settings.training, at_a_time, advance)
    scores = dict(closed or costly)
    views = [View(division, scores, part, settings.criterion, shift) for part in parts]
    wanted = []
    for of in costly.values():
        allowed = {view.part for view in views if of.family.levels.name in view.levels_for_costly_kinds}
        needed = {folds for folds in jobs if allowed.intersection(_told_by(folds))}
        wanted.append((of.family, of.of, needed))
    fill(division, wanted, settings.training, at_a_time, advance)
    scores.update(costly)
    return views


def _families(division: Division, settings: Settings, costly: bool) -> dict[Name, Scores]:
    n_rows = len(division.source.labels) * division.source.per_image
    found = {}
    for levels in settings.level_sets:
        for kind in settings.kinds:
            strengths = tuple(kind.grid(settings.strengths, n_rows, len(levels.columns), division.n_classes))
            if costly == kind.IS_COSTLY and strengths:
                family = Family(kind, levels, strengths)
                found[family.name] = Scores(family, division.empty(family))
    return found


def _told_by(folds: tuple[int, ...]) -> tuple[int, ...]:
    """Return the parts that heads fitted without these folds tell something."""
    return (EVERYTHING, *folds) if len(folds) == 1 else folds
