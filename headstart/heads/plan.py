"""What a selection takes of memory, and what it does without where `train_head.memory_mb` does not hold it.

What it takes grows with images, features, classes and candidates. It does without these, in this order: repeating the
choice within every fold; answers of further images in the cross-validation, which then learn alone; the widest sets of
levels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headstart.base.errors import ParamError
from headstart.heads.contract import PLAIN, Kind, Training
from headstart.heads.crossval import Division
from headstart.heads.descent import SCORES_AT_ONCE, n_steps_kept
from headstart.heads.design import PROCESS_MB, Budget, Source
from headstart.heads.folds import assign_folds, draw
from headstart.heads.level_sets import LevelSet

MAX_VALIDATED = 10_000  # images in the cross-validation: more would not make the choice any surer
ENOUGH_ANSWERED = 1_000  # of them that heads answer; where memory holds fewer, fewer sets of levels are tried
_PER_CLASS = 20  # images that the cross-validation should have; where memory lacks for them, it is not nested
_COPIES = 3  # of the standardised rows that a fit has in memory
_MATRICES = 5  # covariances and their eigenvectors, float64
_POINTS = 8  # arrays of a head's weights, float64, that descent has beside the steps that it remembers
_OF_SCORES = 4  # arrays of scores, float32, in a loss
_OF_CLOSED = 7  # arrays of a head's weights, float64, in a closed form
_OF_JUDGING = 6  # arrays of all scores of a candidate, float64, while it is judged
_LEAST_ANSWERED = 100


class Settings(NamedTuple):
    """What a selection chooses among, and by what."""

    kinds: Sequence[Kind]
    level_sets: Sequence[LevelSet]
    strengths: Sequence[float]
    folds: int
    seed: int
    memory_mb: int  # of the whole process
    criterion: str = "log_loss"  # a name of CRITERIA
    with_blend: bool = True
    training: Training = PLAIN
    adjustment: float = 0.0  # how often the log prior of a class is taken off its scores
    is_nested: bool = True  # whether the choice is repeated within every outer fold

    def n_sets(self, kind: Kind) -> int:
        """Return on how many sets of levels a kind may be tried."""
        is_narrowed = kind.IS_COSTLY and not all(each.IS_COSTLY for each in self.kinds)
        return min(self.folds + 2, len(self.level_sets)) if is_narrowed else len(self.level_sets)

    @property
    def n_fits(self) -> int:
        """How often `select` calls `advance`, at most."""
        n_pairs = self.folds * (self.folds - 1) // 2 if self.is_nested else 0
        return sum(self.n_sets(kind) for kind in self.kinds) * (self.folds + n_pairs)


def planned(source: Source, n_classes: int, settings: Settings) -> tuple[Settings, Division]:
    """Return what can be tried within `memory_mb`, and the images of the cross-validation with their folds.

    ParamError where that does not hold a single fit. Nothing here depends on the number of cores.
    """
    division, is_too_much = _division(source, n_classes, settings)
    sets = sorted(settings.level_sets, key=lambda each: len(each.columns))
    while is_too_much:
        n_answered = _n_answered(division, settings)
        if n_answered >= ENOUGH_ANSWERED:
            return settings, _thinned(division, n_answered)
        if len(sets) == 1:
            if n_answered < _LEAST_ANSWERED:
                raise _too_small(division, settings)
            return settings, _thinned(division, n_answered)
        del sets[-1]
        settings = settings._replace(level_sets=[each for each in settings.level_sets if each in sets])
        division, is_too_much = _division(source, n_classes, settings)
    return settings, division


def most_whole(n_features: int, n_classes: int, settings: Settings) -> int:
    """Return of how many images, if there are no more, `planned` takes all into one cross-validation that isn't nested.

    One at least. Rows are of `n_features`, without views.
    """
    budget, width = Budget(settings.memory_mb), max(len(each.columns) for each in settings.level_sets)
    each = _COPIES * 4 * (n_features + 1) + _answer_bytes(n_classes, 1, settings)

    def lacks(n: int) -> bool:
        return budget.how_many(each, class_bytes(min(n, _PER_CLASS * n_classes), width, n_classes)) < n

    return max(1, bisect_left(range(1, MAX_VALIDATED + 1), True, key=lacks))


def _too_small(division: Division, settings: Settings) -> ParamError:
    n_classes = division.n_classes
    needed = fit_bytes(division.source, len(division.validated), n_classes, settings)
    needed += _LEAST_ANSWERED * _answer_bytes(n_classes, 1, settings)
    return ParamError(
        f"train_head.memory_mb is {settings.memory_mb}, which does not hold a head of {n_classes:,} classes on"
        f" {len(settings.level_sets[0].columns):,} features. {PROCESS_MB + round(needed / 1e6) + 1} or more were"
        " expected. Set it in params.yaml."
    )


def fit_bytes(source: Source, n_images: int, n_classes: int, settings: Settings) -> int:
    """Return what fitting one head takes: rows, matrices of their features, and what grows with classes."""
    matrices = _MATRICES * 8 * min(n_images * source.per_image, source.n_features) ** 2
    rows = _COPIES * source.row_bytes() * n_images
    return rows + matrices + _class_bytes(source, n_images, n_classes, settings)


def _class_bytes(source: Source, n_images: int, n_classes: int, settings: Settings) -> int:
    width = max(len(each.columns) for each in settings.level_sets)
    return class_bytes(n_images * source.per_image, width, n_classes)


def class_bytes(n_rows: int, n_features: int, n_classes: int) -> int:
    """Return what one fit takes that grows with the number of classes."""
    point = (min(n_rows, n_features) + 1) * n_classes
    scores = 4 * _OF_SCORES * max(min(n_rows, SCORES_AT_ONCE // n_classes), 1) * n_classes
    descent = 8 * point * (2 * n_steps_kept(point) + _POINTS) + scores
    return max(descent, 8 * n_features * n_classes * _OF_CLOSED)


def judging_bytes(division: Division, settings: Settings) -> int:
    """Return what judging the candidates takes for one view of the scores."""
    return 8 * _n_judged(settings) * len(division.validated) * division.n_classes


def _division(source: Source, n_classes: int, settings: Settings) -> tuple[Division, bool]:
    """Return the images of the cross-validation, and whether they are more than memory holds the answers of.

    A class has an image in every fold, if it has as many, however small the memory.
    """
    budget, n_wanted = Budget(settings.memory_mb), min(len(source.labels), _PER_CLASS * n_classes)
    row_bytes, taken = _COPIES * source.row_bytes(), _class_bytes(source, n_wanted, n_classes, settings)
    is_nested = settings.is_nested and settings.folds > 2
    n_parts = settings.folds + 1 if is_nested else 1
    n_images = budget.how_many(row_bytes + _answer_bytes(n_classes, n_parts, settings), taken)
    if n_images < n_wanted:
        is_nested, n_images = False, budget.how_many(row_bytes + _answer_bytes(n_classes, 1, settings), taken)
    n_images = min(MAX_VALIDATED, n_images)
    validated = draw(source.labels, source.groups, n_images, settings.seed, settings.folds)
    labels, groups = source.labels[validated], source.groups[validated]
    fold_of = assign_folds(labels, groups, settings.folds, settings.seed)
    division = Division(source, n_classes, validated, fold_of, bool(is_nested and fold_of.max() > 1))
    return division, len(validated) > n_images


def _n_heads(settings: Settings, n_classes: int) -> int:
    return sum(settings.n_sets(kind) * len(kind.grid(settings.strengths, 100, 1, n_classes)) for kind in settings.kinds)


def _answer_bytes(n_classes: int, n_parts: int, settings: Settings) -> int:
    """Return what the answers of one image take: the scores of all heads, and judging them."""
    return (4 * _n_heads(settings, n_classes) * n_parts + 8 * _n_judged(settings)) * n_classes


def _n_judged(settings: Settings) -> int:
    """Return how many arrays of all scores of a candidate there are while candidates are judged, and blended."""
    n_linear = sum(settings.n_sets(kind) for kind in settings.kinds if kind.IS_LINEAR)
    return _OF_JUDGING + (2 * n_linear if settings.with_blend else 0)


def _n_answered(division: Division, settings: Settings) -> int:
    """Return of how many images memory holds the answers beside fitting a head on all; 0 if a fit is too large."""
    taken = fit_bytes(division.source, len(division.validated), division.n_classes, settings)
    left = Budget(settings.memory_mb).n_bytes - taken
    n_parts = division.n_folds + 1 if division.is_nested else 1
    return max(0, left) // _answer_bytes(division.n_classes, n_parts, settings)


def _thinned(division: Division, n_answered: int) -> Division:
    """Return the division with answers of `n_answered` images: as many of every fold, in whole groups."""
    if n_answered >= len(division.validated):
        return division
    is_answered = np.zeros(len(division.validated), bool)
    for fold in range(division.n_folds):
        here = np.flatnonzero(division.fold_of == fold)
        wanted = max(1, n_answered // division.n_folds)
        some = draw(division.labels[here], division.groups[here], wanted, seed=fold, least=0)
        is_answered[here[some] if len(some) else here[:1]] = True
    return Division(
        division.source,
        division.n_classes,
        division.validated[is_answered],
        division.fold_of[is_answered],
        division.is_nested,
        division.validated[~is_answered],
        division.fold_of[~is_answered],
    )
