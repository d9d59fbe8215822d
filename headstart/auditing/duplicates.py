"""Near-identical images: candidates by their features, confirmed by their pixels, in clusters.

What counts as near-identical is calibrated on this dataset. Copies that are made of some images say how alike copies
are; random pairs of a class say how alike its images are anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from headstart.auditing import alignment, copies
from headstart.auditing.folder import Calibration
from headstart.auditing.neighbours import Neighbours, Rows, cosines, unit
from headstart.base.cores import n_cores
from headstart.embedding.pixels import threads

MAX_PAIRS = 12_000  # that are compared by pixels
_N_ORIGINALS = 30  # that copies are made of
_N_RANDOM = 100  # pairs of a class
_MAX_RANDOM = 1500  # pairs of all classes
_ENOUGH = 20  # pairs of a class that may have a scale of its own
_NEAREST = 3  # neighbours of an image that may be its copies
_DEVIATIONS = 5.0  # that a pair has to be above random pairs of its class
_FAR, _UNLIKE = 0.005, 0.02  # share of the copies whose features, or whose pixels, are less alike
_HIGHEST = 1 - 1e-6
_BLOCK = 1024  # pairs whose small grey pictures are in memory a second time, as they are compared
_CHUNK = 32  # images whose pixels are in memory, for each core

Pixels = Callable[[np.ndarray], np.ndarray]  # numbers of images -> uint8 [n, S, S, 3]
Backbone = Callable[[np.ndarray], np.ndarray]  # uint8 [n, S, S, 3] -> float32 [n, D], the columns of `features`
Compare = Callable[[np.ndarray], np.ndarray]  # int [P, 2] numbers of images -> correlations float32 [P]
Before = Callable[[np.ndarray, Compare], np.ndarray]  # pairs, and what compares those that are not known


def anew(pairs: np.ndarray, compare: Compare) -> np.ndarray:
    """Return the correlations of all pairs, of which none is known."""
    return compare(pairs)


class Pairs(NamedTuple):
    """Near-identical pairs."""

    rows: np.ndarray  # int [P, 2]
    correlations: np.ndarray  # float32 [P], of the aligned pixels


def find(
    features: Rows,
    labels: np.ndarray,
    n_classes: int,
    neighbours: Neighbours,
    pixels: Pixels,
    backbone: Backbone,
    seed: int,
    before: Before = anew,
) -> tuple[Pairs, Calibration]:
    """Return the near-identical pairs of [N, D] `features`, and the calibration that they follow from.

    `before` knows of earlier comparisons.
    """
    draw = np.random.default_rng(seed)
    thresholds, randoms, rows = _scale(labels, n_classes, pixels, draw)
    originals = np.sort(draw.choice(len(labels), min(_N_ORIGINALS, len(labels)), replace=False))
    near, alike = _copied(features, originals, pixels, backbone, draw)
    floor = float(np.quantile(np.concatenate([*near.values()]), _FAR))
    thresholds = _apart(thresholds, float(np.quantile(np.concatenate([*alike.values()]), _UNLIKE)))
    candidates, is_cut = _candidates(features, neighbours, floor)
    found = before(candidates, lambda rows: compared(rows, pixels))
    needed = thresholds[labels[candidates]].max(1)
    wanted = thresholds[labels[originals]]
    recall = {kind: float(((near[kind] >= floor) & (alike[kind] >= wanted)).mean()) for kind in alike}
    calibration = Calibration(
        cosine=round(floor, 6),
        correlations=thresholds.round(6).tolist(),
        n_originals=len(originals),
        recall={kind: round(share, 4) for kind, share in recall.items()},
        n_random=len(randoms),
        n_false=int((randoms >= thresholds[labels[rows]].max(1)).sum()),
        false_positive_rate=_beyond(_DEVIATIONS),
        n_compared=len(candidates),
        is_cut=is_cut,
    )
    is_same = found >= needed
    return Pairs(candidates[is_same], found[is_same]), calibration


def clusters(pairs: np.ndarray, n_images: int) -> list[np.ndarray]:
    """Return the connected images of int [P, 2] pairs: sorted numbers of each cluster, clusters by their first."""
    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n_images, n_images))
    _, member_of = connected_components(graph, directed=False)
    involved = np.unique(pairs)
    names = member_of[involved]
    order = np.argsort(names, kind="stable")
    found = np.split(involved[order], np.flatnonzero(np.diff(names[order])) + 1)
    return sorted(found, key=lambda rows: int(rows[0]))


def _scale(
    labels: np.ndarray, n_classes: int, pixels: Pixels, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the correlation that a pair of each class needs [C], and those of random pairs [P] with their rows [P, 2].

    Correlations are compared after Fisher's transform, in which they are about normal.
    """
    n_pairs = min(_N_RANDOM, max(2, _MAX_RANDOM // n_classes))
    rows = np.concatenate([_random_pairs(np.flatnonzero(labels == each), n_pairs, draw) for each in range(n_classes)])
    rows = rows if len(rows) <= _MAX_RANDOM else rows[np.sort(draw.choice(len(rows), _MAX_RANDOM, replace=False))]
    if not len(rows):
        return np.full(n_classes, _HIGHEST), np.zeros(0, np.float32), rows
    found = compared(rows, pixels)
    scores, of_class = _transformed(found), labels[rows[:, 0]]
    centre, spread = _robust(scores)
    thresholds = np.full(n_classes, centre + _DEVIATIONS * spread)
    for each in range(n_classes):
        own = scores[of_class == each]
        if len(own) >= _ENOUGH:
            middle, around = _robust(own)
            thresholds[each] = middle + _DEVIATIONS * max(around, 0.5 * spread)
    return np.minimum(np.tanh(thresholds), _HIGHEST), found, rows


def _apart(thresholds: np.ndarray, lowest: float) -> np.ndarray:
    """Return thresholds halfway to the `lowest` correlation of copies, where copies are above random pairs at all.

    Two pictures of one thing are more alike than random ones: what copies leave of room is kept between them.
    """
    found: np.ndarray = np.tanh(
        (_transformed(thresholds) + np.maximum(_transformed(thresholds), np.arctanh(lowest))) / 2
    )
    return found


def _robust(scores: np.ndarray) -> tuple[float, float]:
    """Return centre and spread, which a few copies among random pairs do not move."""
    low, middle, high = np.quantile(scores, [0.1587, 0.5, 0.8413])
    return float(middle), float(max(high - middle, middle - low, 1e-3))


def _random_pairs(members: np.ndarray, n_pairs: int, draw: np.random.Generator) -> np.ndarray:
    """Return different pairs, int [at most n_pairs, 2]: a pair that counted twice would make few look like enough."""
    if len(members) < 3:
        return np.zeros((0, 2), np.int64)
    rows = np.unique(np.sort(draw.choice(members, (n_pairs, 2)), axis=1), axis=0)
    kept: np.ndarray = rows[rows[:, 0] != rows[:, 1]]
    return kept


def _copied(
    features: Rows, originals: np.ndarray, pixels: Pixels, backbone: Backbone, draw: np.random.Generator
) -> tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]:
    """Return, for each kind of copy, cosine and correlation of each copy with its original."""
    seen = pixels(originals)
    units, pictures = unit(features[originals]), alignment.grey(seen)
    near, alike = {}, {}
    for kind, make in copies.KINDS.items():
        made = np.stack([make(each, draw) for each in seen])
        near[kind] = (unit(backbone(made)) * units).sum(1)
        alike[kind] = alignment.correlation(pictures, alignment.grey(made))
    return near, alike


def _candidates(features: Rows, neighbours: Neighbours, floor: float) -> tuple[np.ndarray, bool]:
    """Return the pairs that may be copies, the nearest `MAX_PAIRS`; and whether there were more."""
    n_rows, k = neighbours.rows.shape
    k = min(k, _NEAREST)
    pairs = np.stack([np.repeat(np.arange(n_rows), k), neighbours.rows[:, :k].ravel()], 1)
    near = neighbours.cosines[:, :k].ravel()
    is_other = pairs[:, 0] != pairs[:, 1]
    pairs, at = np.unique(np.sort(pairs[is_other], 1), axis=0, return_index=True)
    near = near[is_other][at]
    if not neighbours.is_exact:
        order = np.argsort(-near, kind="stable")[: 4 * MAX_PAIRS]
        pairs = pairs[order]
        near = cosines(features, pairs)
    order = np.argsort(-near, kind="stable")
    order = order[near[order] >= floor]
    return pairs[order[:MAX_PAIRS]], len(order) > MAX_PAIRS


def compared(pairs: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Return the correlation of each pair, float32 [P]. Each image is read once; its small grey picture is kept."""
    rows, at = np.unique(pairs, return_inverse=True)
    parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    empty = np.zeros((0, alignment.SIDE_PX, alignment.SIDE_PX), np.uint8)
    read = threads(n_cores()).map(lambda some: alignment.grey(pixels(some)), parts)
    pictures = np.concatenate([empty, *read])
    first, second = at.reshape(pairs.shape).T
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(pairs), _BLOCK)]
    found = [alignment.correlation(pictures[first[block]], pictures[second[block]]) for block in blocks]
    return np.concatenate([np.zeros(0, np.float32), *found])


def _transformed(correlations: np.ndarray) -> np.ndarray:
    return np.asarray(np.arctanh(correlations.clip(-_HIGHEST, _HIGHEST)))


def _beyond(deviations: float) -> float:
    """Return how often a normal value is further above its mean."""
    from statistics import NormalDist

    return float(f"{1 - NormalDist().cdf(deviations):.2g}")
