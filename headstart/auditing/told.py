"""Findings about single images: near-identical ones, labels that may be wrong, and odd ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from headstart.auditing import label_errors, quality
from headstart.auditing.duplicates import Pairs
from headstart.auditing.folder import Finding, Kind, Severity
from headstart.auditing.label_errors import Judged
from headstart.auditing.neighbours import Neighbours, nearest_of, vote
from headstart.auditing.seen import Seen
from headstart.base.dataset import TEST, VAL
from headstart.base.progress import bar

_SURE, _LIKELY = 0.8, 0.3  # by which another label is more probable
_FIRST = {TEST: 0, VAL: 1}  # whose images the others of a cluster are compared with
_MAX_COMPARED = 500  # suspicious labels, the most suspicious, that are shown beside the nearest images of both labels
_FAR = 8.0  # robust deviations of an odd image that is surely odd


def copies(seen: Seen, pairs: Pairs, clusters: Sequence[np.ndarray]) -> list[Finding]:
    """Return a finding for each image of a cluster but the one that the others are compared with."""
    alike: dict[int, float] = {}
    for (one, other), score in zip(pairs.rows.tolist(), pairs.correlations.tolist(), strict=True):
        for row in (one, other):
            alike[row] = max(alike.get(row, 0.0), score)
    return [
        _copy(seen, int(row), first, number, alike[int(row)])
        for number, rows in enumerate(clusters)
        for first in [_first(seen, rows)]
        for row in rows
        if row != first
    ]


def n_held_out_leaked(seen: Seen, clusters: Sequence[np.ndarray]) -> int:
    """Return how many test images have a near-identical one in train or val."""
    held_out = seen.is_held_out
    return sum(int(held_out[rows].sum()) for rows in clusters if not held_out[rows].all())


def labels(seen: Seen, near: Neighbours) -> tuple[list[Finding], int]:
    """Return a finding for each image that another label is more probable of, and how many the neighbours judged.

    Images without a prediction out of fold are judged by the vote of their nearest images.
    """
    lacks = ~seen.judged.is_known
    judged = Judged(*(each.copy() for each in seen.judged))

    def votes(some: np.ndarray) -> np.ndarray:
        return vote(Neighbours(near.rows[some], near.cosines[some], near.is_exact), seen.labels, len(seen.classes))

    label_errors.judge(judged, np.flatnonzero(lacks), seen.labels, votes)
    margins, others = judged.own - judged.other, judged.suggested
    suspicious = np.argsort(margins, kind="stable")[: int((margins < 0).sum())]
    some = suspicious[:_MAX_COMPARED]
    twins = dict(zip(some.tolist(), nearest_of(seen.rows, some, seen.labels, others[some]).tolist(), strict=True))
    alike = dict(zip(some.tolist(), nearest_of(seen.rows, some, seen.labels, seen.labels[some]).tolist(), strict=True))
    found = []
    for row in suspicious.tolist():
        given, other = seen.classes[seen.labels[row]], seen.classes[others[row]]
        by = "its nearest images" if lacks[row] else "a head that was not fitted on it"
        score = float(-margins[row])
        severity: Severity = "high" if score > _SURE else "medium" if score > _LIKELY else "low"
        reason = f"{by}: {other} {judged.other[row]:.0%}, {given} {judged.own[row]:.0%}"
        to_do = f"look at it: is it {other}?"
        twin, same = twins.get(row, -1), alike.get(row, -1)
        found.append(_finding(seen, "label", row, twin, score, severity, reason, to_do, suggested=other, same=same))
    return found, int(lacks.sum())


def odd(seen: Seen, near: Neighbours) -> list[Finding]:
    """Return a finding for each way in which an image is unlike the others."""
    with bar("looking", len(seen), "image") as advance:
        ids, n_measures = seen.images.image_ids, len(quality.MEASURES)
        measure = partial(seen.of_each, quality.measure, advance=advance)
        measures = seen.measured.rows(quality.NAME, n_measures, ids, measure, advance).astype(np.float64)
    widths, heights = seen.sizes.T
    distances = (1 - near.cosines.astype(np.float64)).mean(1)
    found = []
    for each in quality.odd(measures, widths, heights, distances):
        severity: Severity = "medium" if each.deviations > _FAR else "low"
        to_do = "look at it: does it show its class? If not, drop it"
        found.append(_finding(seen, "odd", each.row, -1, each.deviations, severity, each.reason, to_do))
    return found


def _copy(seen: Seen, row: int, first: int, number: int, score: float) -> Finding:
    if _doubts(seen, first) and not _doubts(seen, row) and seen.labels[row] != seen.labels[first]:
        row, first = first, row  # the finding is about the image whose label is the doubtful one
    splits, given = seen.splits[[row, first]], seen.labels[[row, first]]
    kind: Kind = "leak" if splits[0] != splits[1] else "conflict" if given[0] != given[1] else "copy"
    reason = f"nearly the same picture as one in {splits[1]}"
    if given[0] != given[1]:
        reason += f" with the label {seen.classes[given[1]]}"
        if _doubts(seen, row):
            by_head = seen.classes[seen.judged.suggested[row]]
            reason += f"; a head that was not fitted on it doubts its own label, and says {by_head}"
    to_do = {
        "leak": "put both in one split (move), or drop one",
        "conflict": "look at both: one label is wrong",
        "copy": "give both one group, so that no fold separates them",
    }[kind]
    severity: Severity = "low" if kind == "copy" else "high" if TEST in splits or kind == "conflict" else "medium"
    suggested = seen.classes[given[1]] if given[0] != given[1] else None
    return _finding(seen, kind, row, first, score, severity, reason, to_do, suggested=suggested, cluster=number)


def _doubts(seen: Seen, row: int) -> bool:
    """Return whether a head that was not fitted on an image holds another label more probable; False for test."""
    judged = seen.judged
    return bool(judged.is_known[row] and judged.own[row] < judged.other[row])


def _first(seen: Seen, rows: np.ndarray) -> int:
    """Return the image of a cluster that the others are compared with: of test, else of val, else the first path."""
    return int(min(rows, key=lambda row: (_FIRST.get(str(seen.splits[row]), 2), seen.images.paths[row])))


def _finding(
    seen: Seen,
    kind: Kind,
    row: int,
    other: int,
    score: float,
    severity: Severity,
    reason: str,
    to_do: str,
    suggested: str | None = None,
    cluster: int | None = None,
    same: int = -1,
) -> Finding:
    """Return a finding about the image of number `row`; a number of -1 is no image."""
    ids, paths = seen.images.image_ids, seen.images.paths
    return Finding(
        kind,
        ids[row],
        paths[row],
        str(seen.splits[row]),
        seen.classes[seen.labels[row]],
        None if other < 0 else ids[other],
        None if other < 0 else paths[other],
        None if same < 0 else ids[same],
        None if same < 0 else paths[same],
        suggested,
        cluster,
        round(score, 6),
        severity,
        reason,
        to_do,
    )
