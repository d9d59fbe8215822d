"""The evidence for a choice: every candidate with its figures, and what choosing itself is worth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headstart.base.intervals import Interval, n_independent, wilson
from headstart.base.paired import advantage
from headstart.heads import blend, members
from headstart.heads.calibration import log_loss, losses
from headstart.heads.kinds import KINDS
from headstart.heads.view import Judged, Name, View


class Candidate(NamedTuple):
    """A head that was tried, and its figures on held-out images."""

    kind: str
    levels: str
    n_features: int
    n_numbers: int  # in head.onnx
    strength: float  # 0 for a kind without one; of lda, 0 is the shrinkage of Ledoit and Wolf
    cv_accuracy: float
    cv_accuracy_se: float  # standard error, groups kept whole
    cv_log_loss: float  # nats an image, calibrated by `temperature`
    cv_log_loss_se: float
    temperature: float
    is_best: bool  # of its kind and levels
    nested_accuracy: float | None  # of the best of its kind and levels, chosen anew within every outer fold
    nested_low: float | None
    nested_high: float | None
    chosen: bool


class Nested(NamedTuple):
    """What the whole selection, repeated within every outer fold, gives on images that it never looked at."""

    accuracy: float
    interval: Interval
    log_loss: float  # nats an image, calibrated
    n_agreeing: int  # outer folds that chose the same kind and levels


def nested(views: Sequence[View], chosen: Sequence[Judged]) -> Nested:
    """Return the figures of the selection. The first view looks at everything, the others hide a fold each."""
    division = views[0].division
    found = np.zeros((len(division.validated), division.n_classes))
    for view, each in zip(views[1:], chosen[1:], strict=True):
        found[view.hidden] = view.hidden_scores(each)
    right = found.argmax(1) == division.labels
    accuracy, interval = _share(right, division.groups)
    n_agreeing = sum(each.name == chosen[0].name for each in chosen[1:])
    return Nested(accuracy, interval, log_loss(found, division.labels), n_agreeing)


def table(views: Sequence[View], judged: Sequence[Sequence[Judged]], winner: Judged) -> list[Candidate]:
    """Return all candidates, family by family, the weakest strength first; the blend is the last.

    Strengths that no fold has fitted, because the path had ended, are left out.
    """
    found = []
    for best in judged[0]:
        inside = _nested_accuracy(views, judged, best.name)
        every = [best] if best.name[0] == blend.NAME else _fitted(views[0].each_strength(best.name))
        for each in reversed(every):
            is_best = len(every) == 1 or each.order == best.order
            is_chosen = is_best and best.name == winner.name
            shown = winner if is_chosen else each  # its calibration is settled
            found.append(_candidate(views[0], shown, inside if is_best else None, is_best, is_chosen))
    return found


def _fitted(path: Sequence[Judged]) -> list[Judged]:
    """Return the candidates of a path, the strongest first, up to the last that was fitted in any fold."""
    same = [np.array_equal(one.scores, other.scores) for one, other in itertools.pairwise(path)]
    return [path[0], *(each for each, is_same in zip(path[1:], same, strict=True) if not is_same)]


def _nested_accuracy(
    views: Sequence[View], judged: Sequence[Sequence[Judged]], name: Name
) -> tuple[float, Interval] | None:
    """Return the accuracy of the best of a family within every outer fold; None where a fold did not try the family."""
    division = views[0].division
    right = np.zeros(len(division.validated), bool)
    for view, tried in zip(views[1:], judged[1:], strict=True):
        own = next((each for each in tried if each.name == name), None)
        if own is None:
            return None
        right[view.hidden] = view.hidden_scores(own).argmax(1) == division.labels[view.hidden]
    return _share(right, division.groups) if len(views) > 1 else None


def _candidate(
    view: View, each: Judged, inside: tuple[float, Interval] | None, is_best: bool, is_chosen: bool
) -> Candidate:
    right, loss = (each.scores.argmax(1) == view.labels).astype(np.float64), losses(each.scores, view.labels)
    none, n_rows = np.zeros(len(loss)), len(view.division.source.labels) * view.division.source.per_image
    kind, levels = each.name
    size = KINDS[kind if kind in KINDS else each.members[0].kind].n_numbers
    n_features = len(members.columns_of(each.members))
    return Candidate(
        kind,
        levels,
        n_features,
        size(n_rows, n_features, view.division.n_classes),
        each.members[0].strength if len(each.members) == 1 else 0.0,
        float(right.mean()),
        advantage(right, none, view.groups).standard_error,
        float(loss.mean()),
        advantage(loss, none, view.groups).standard_error,
        each.temperature,
        is_best,
        inside[0] if inside else None,
        inside[1].low if inside else None,
        inside[1].high if inside else None,
        is_chosen,
    )


def _share(right: np.ndarray, groups: np.ndarray) -> tuple[float, Interval]:
    share = float(right.mean())
    return share, wilson(share, n_independent(groups))
