"""How well heads do on a candidate's features: cross-validated, on the same folds for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from headstart.base.errors import ParamError
from headstart.base.intervals import Interval, n_independent, wilson
from headstart.base.paired import advantage
from headstart.heads import lda, plan, ridge, sweep
from headstart.heads.calibration import losses
from headstart.heads.criteria import CRITERIA
from headstart.heads.design import Source
from headstart.heads.level_sets import LevelSet, columns_of, level_sets
from headstart.heads.sweep import Selection
from headstart.onnx.backbone_folder import LAST, LevelRecord
from headstart.ranking.hscore import h_score
from headstart.ranking.logme import logme
from headstart.ranking.neighbours import knn_accuracy

if TYPE_CHECKING:
    from headstart.params import TrainHead

KINDS = (ridge, lda)  # closed forms: a second for a few hundred images
_N_SETS = 2  # of levels


class Images(NamedTuple):
    """The images that a candidate is scored on, in the order of its features."""

    labels: np.ndarray  # int [N]
    groups: np.ndarray  # [N]
    n_classes: int


@dataclass(frozen=True)
class Scored:
    """What cross-validation says of a candidate on some images."""

    values: np.ndarray  # float64 [N]: the criterion that heads are selected by, the lower the better
    accuracy: float
    interval: Interval  # of the accuracy, groups kept whole
    log_loss: float  # nats an image, calibrated
    log_loss_se: float
    kind: str
    levels: str


class Alone(NamedTuple):
    """Scores of the features alone: of the level `last`, as published."""

    knn: float
    logme: float
    h_score: float


def most_images(widths: Sequence[int], n_classes: int, settings: TrainHead) -> int:
    """Return of how many images the widest candidate fits into memory: beyond, folds would not be the same for all."""
    width = max(widths)
    every = [LevelSet(str(number), (), np.arange(width)) for number in range(_N_SETS)]
    return plan.most_whole(width, n_classes, _settings(every, settings))


def selection(features: np.ndarray, images: Images, known: Sequence[LevelRecord], settings: TrainHead) -> Selection:
    """Return the best head of a few kinds on float [N, D], by cross-validation.

    Folds follow from labels, groups and `train_head.seed`, so that they are the same for all candidates. Heads read the
    last level or all, unless train_head.levels is one of these.
    """
    chosen = sweep.select(
        Source(features, None, images.labels, images.groups),
        images.n_classes,
        _settings(_level_sets(known, settings.levels), settings),
    )
    if len(chosen.validated) < len(images.labels):
        raise ParamError(
            f"train_head.memory_mb is {settings.memory_mb}, which does not hold {len(images.labels)} images of"
            f" {features.shape[1]} features and {images.n_classes} classes, the fewest that backbones can be compared"
            " on. Raise it, or empty rank.backbones, in params.yaml."
        )
    return chosen


def scored(chosen: Selection, images: Images, criterion: str) -> Scored:
    """Return the cross-validated scores of a selection on all of `images`."""
    scores, labels, groups = chosen.out_of_fold, images.labels, images.groups
    right, loss = scores.argmax(axis=1) == labels, losses(scores, labels)
    accuracy = float(right.mean())
    spread = advantage(loss, np.zeros(len(loss)), groups).standard_error
    interval = wilson(accuracy, n_independent(groups))
    best = chosen.chosen
    values = CRITERIA[criterion](scores, labels)
    return Scored(values, accuracy, interval, float(loss.mean()), spread, best.kind, best.levels)


def last_of(features: np.ndarray, known: Sequence[LevelRecord]) -> np.ndarray:
    """Return the last level of float [N, D]."""
    last: np.ndarray = features[:, columns_of(known, [LAST])]
    return last


def alone(last: np.ndarray, images: Images) -> Alone:
    """Return the scores that need no head, of float [N, last]."""
    rows = last.astype(np.float64)
    with threadpool_limits(1):  # threads that wait for small matrices cost more than they bring
        return Alone(
            knn_accuracy(rows, images.labels, images.groups), logme(rows, images.labels), h_score(rows, images.labels)
        )


def _settings(sets: Sequence[LevelSet], settings: TrainHead) -> plan.Settings:
    return plan.Settings(
        KINDS,
        sets,
        settings.strengths,
        settings.folds,
        settings.seed,
        settings.memory_mb,
        settings.select_by,
        with_blend=False,
        is_nested=False,
    )


def _level_sets(known: Sequence[LevelRecord], wanted: str | tuple[str, ...]) -> list[LevelSet]:
    """Return the sets that heads may read; levels that are named are those of one network, and mean nothing here."""
    names = (wanted,) if wanted in (LAST, "all") else (LAST, "all")
    found = {each.levels: each for name in names for each in level_sets(known, name)}
    return list(found.values())
