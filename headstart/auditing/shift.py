"""Do the held-out images come from elsewhere than those that the model learns from?

Two tests. Is the model right less often on held-out images than in cross-validation? And can a classifier tell held-out
images from the others by their features (Lopez-Paz & Oquab 2017)?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import linalg
from scipy.stats import rankdata

from headstart.auditing.folder import ShiftRecord
from headstart.auditing.neighbours import Neighbours
from headstart.auditing.seen import Seen
from headstart.base.intervals import Z

_AXES = 8  # principal components of each level that the classifier reads
_MAX_IMAGES = 4000  # of either side
_N_PERMUTATIONS = 999
_FOLDS = 5
_RIDGE = 1e-2  # share of the components' mean variance
_BLOCK = 100  # permutations at a time
_ENOUGH = 20  # of them as extreme as what was seen: the rest need not be drawn


class TwoSample(NamedTuple):
    """How well a classifier tells the two sides apart."""

    auc: float  # 0.5: not at all
    auc_low: float  # 95 % interval, with groups kept whole (Obuchowski 1997)
    auc_high: float
    p_value: float  # the chance of such an AUC or a larger one where the sides are alike
    n_known: int
    n_held_out: int


class Drop(NamedTuple):
    """The accuracy in cross-validation beside that on held-out images."""

    known: float
    held_out: float
    p_value: float  # that the held-out accuracy is so much lower by chance


def two_sample(
    features: np.ndarray,
    levels: Sequence[slice],
    labels: np.ndarray,
    groups: np.ndarray,
    is_held_out: np.ndarray,
    seed: int,
) -> TwoSample | None:
    """Return whether held-out images differ from others of their class; None where a side has too few.

    `features` float [N, D], the columns of each level, `labels` int [N], `groups` [N], `is_held_out` bool [N]. Class
    means are taken off, since another mix of classes is no other source. A ridge regression on the principal components
    of each level gives each image a score out of fold; another light or sharpness shows in the early levels. The
    p-value is that of permutations of whole groups within classes: exact, however few images there are.
    """
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if min(len(np.unique(group_of[is_held_out])), len(np.unique(group_of[~is_held_out]))) < 2 * _FOLDS:
        return None
    draw = np.random.default_rng(seed)
    values = _within_classes(features, labels)
    components = np.concatenate([_components(values[:, columns]) for columns in levels], axis=1)
    first = np.zeros(len(sizes), np.int64)
    first[group_of[::-1]] = np.arange(len(groups))[::-1]
    folds = draw.permutation(np.arange(len(sizes)) % _FOLDS)[group_of]
    scores = _scores(components, is_held_out[:, None], folds)
    auc = float(_aucs(scores, is_held_out[:, None])[0])
    drawn = _permuted(is_held_out[first], labels[first], sizes, draw)
    is_as_large = (
        _aucs(_scores(components, sides, folds), sides) >= auc - 1e-12 for sides in (each[group_of] for each in drawn)
    )
    n_held_out = int(is_held_out.sum())
    half = Z * _error(scores[:, 0], is_held_out, group_of)
    return TwoSample(
        auc,
        max(0.0, auc - half),
        min(1.0, auc + half),
        _p_value(is_as_large),
        len(labels) - n_held_out,
        n_held_out,
    )


def _p_value(blocks: Iterable[np.ndarray]) -> float:
    """Return the p-value of permutations, bool [n] a block: whether each was as extreme as what was seen.

    It stops early where many are (Besag & Clifford 1991): valid at any level, and no more blocks are asked for.
    """
    seen = np.zeros(0, bool)
    for block in blocks:
        seen = np.concatenate([seen, block])
        if seen.sum() >= _ENOUGH:
            return float(_ENOUGH / (np.flatnonzero(seen)[_ENOUGH - 1] + 1))
    return float((1 + seen.sum()) / (1 + len(seen)))


def sample(is_held_out: np.ndarray, seed: int) -> np.ndarray:
    """Return the sorted numbers of the images that the test looks at: all, or `_MAX_IMAGES` of either side."""
    draw = np.random.default_rng(seed)
    sides = [np.flatnonzero(is_held_out == side) for side in (False, True)]
    some = [draw.choice(each, min(len(each), _MAX_IMAGES), replace=False) for each in sides]
    return np.sort(np.concatenate(some))


def drop(right: np.ndarray, labels: np.ndarray, groups: np.ndarray, is_held_out: np.ndarray) -> Drop:
    """Return whether the answers on held-out images are right less often than in cross-validation, all [N].

    A group counts for as much as its answers differ within it: permutations of whole groups between the sides, within
    classes, since another mix of classes is no other source.
    """
    _, codes = np.unique(groups, return_inverse=True)
    _, first, group_of, sizes = np.unique(
        2 * codes + is_held_out, return_index=True, return_inverse=True, return_counts=True
    )
    n_right, sides, strata = np.bincount(group_of, right), is_held_out[first], labels[first]
    order = np.argsort(strata, kind="stable")
    n_right, sizes, sides, strata = n_right[order], sizes[order], sides[order], strata[order]
    draw = np.random.default_rng(0)

    def lower(side: np.ndarray) -> float:
        right_there, there = float(n_right[side].sum()), int(sizes[side].sum())
        return (float(n_right.sum()) - right_there) / (len(right) - there) - right_there / there

    seen = lower(sides)
    drawn = [lower(sides[np.argsort(strata + draw.random(len(strata)))]) for _ in range(_N_PERMUTATIONS)]
    p_value = (1 + sum(each >= seen - 1e-12 for each in drawn)) / (1 + _N_PERMUTATIONS)
    return Drop(float(right[~is_held_out].mean()), float(right[is_held_out].mean()), float(p_value))


def _within_classes(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    values = features.astype(np.float64)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-9)
    for label in np.unique(labels):
        values[labels == label] -= values[labels == label].mean(0)
    return np.asarray(values)


def _components(values: np.ndarray) -> np.ndarray:
    """Return the first principal components, [N, at most _AXES], the first with a variance of 1."""
    products = values.T @ values if values.shape[1] <= len(values) else values @ values.T
    last = len(products) - 1
    lengths, vectors = linalg.eigh(products, subset_by_index=[max(0, last - _AXES + 1), last])
    found: np.ndarray = values @ vectors if len(products) == values.shape[1] else vectors * np.sqrt(lengths.clip(0))
    return found / max(float(found.std(0).max()), 1e-12)


def _permuted(
    sides: np.ndarray, labels: np.ndarray, sizes: np.ndarray, draw: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the sides of the groups, drawn anew within each class and size, so that their numbers stay: bool [G, n]."""
    _, stratum = np.unique(np.stack([labels, sizes], 1), axis=0, return_inverse=True)
    held = np.argsort(stratum.ravel(), kind="stable")
    ordered = stratum.ravel()[held]
    for start in range(0, _N_PERMUTATIONS, _BLOCK):
        found = np.empty((len(sides), min(_BLOCK, _N_PERMUTATIONS - start)), bool)
        for column in found.T:
            column[held] = sides[held][np.argsort(ordered + draw.random(len(sides)))]
        yield found


def _aucs(scores: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the AUC of each column of float64 [N, P], for the sides bool [N, P]."""
    ranks = rankdata(scores, axis=0)
    n_held_out = sides.sum(0)
    found: np.ndarray = ((ranks * sides).sum(0) - n_held_out * (n_held_out + 1) / 2) / (
        n_held_out * (len(sides) - n_held_out)
    )
    return found


def _scores(components: np.ndarray, sides: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Return the scores out of fold for each column of bool [N, P], float64 [N, P]."""
    targets = np.where(sides, 1.0, -1.0)
    scores = np.empty(targets.shape)
    for fold in range(_FOLDS):
        inside, outside = folds != fold, folds == fold
        centre = components[inside].mean(0)
        known = components[inside] - centre
        gram = known.T @ known
        gram[np.diag_indices(len(gram))] += _RIDGE * np.trace(gram) / len(gram)
        means = targets[inside].mean(0)
        weights = np.linalg.solve(gram, known.T @ (targets[inside] - means))
        scores[outside] = (components[outside] - centre) @ weights
    return scores


def _error(scores: np.ndarray, is_held_out: np.ndarray, group_of: np.ndarray) -> float:
    """Return the standard error of an AUC with groups kept whole (Obuchowski 1997, with no group on both sides).

    `scores` float64 [N], `is_held_out` bool [N], `group_of` int [N]. Where each image is a group of its own, it is that
    of DeLong, DeLong & Clarke-Pearson (1988).
    """
    ranks, variance = rankdata(scores), 0.0
    for side in (is_held_out, ~is_held_out):
        above = (ranks[side] - rankdata(scores[side])) / (~side).sum()  # share of the other side below each
        sums = np.bincount(group_of[side], above - above.mean())
        n_groups = len(np.unique(group_of[side]))
        variance += float((sums**2).sum()) * n_groups / (n_groups - 1) / side.sum() ** 2
    return float(variance**0.5)


def judged(seen: Seen, near: Neighbours, level: float, seed: int, series: str) -> ShiftRecord:
    """Return both tests, at half the level each, with the likely reason; `series` says what images belong together."""
    both, held_out, groups = seen.judged.is_known, seen.is_held_out, seen.images.groups
    right = seen.judged.predicted(seen.labels) == seen.labels
    lower = drop(right[both], seen.labels[both], groups[both], held_out[both])
    some = sample(held_out, seed)
    apart = two_sample(seen.every[some], seen.levels, seen.labels[some], groups[some], held_out[some], seed)
    is_lower, differs = lower.p_value <= level / 2, apart is not None and apart.p_value <= level / 2
    agreements = _agreement(seen, near)
    return ShiftRecord(
        cv_accuracy=round(lower.known, 6),
        held_out_accuracy=round(lower.held_out, 6),
        drop_p_value=round(lower.p_value, 6),
        auc=None if apart is None else round(apart.auc, 6),
        auc_low=None if apart is None else round(apart.auc_low, 6),
        auc_high=None if apart is None else round(apart.auc_high, 6),
        auc_p_value=None if apart is None else round(apart.p_value, 6),
        neighbour_agreement=round(agreements[0], 6),
        held_out_neighbour_agreement=round(agreements[1], 6),
        level=level,
        is_lower=is_lower,
        differs=differs,
        verdict=_verdict(lower, apart if differs else None, is_lower, agreements, series),
    )


def _verdict(lower: Drop, apart: TwoSample | None, is_lower: bool, agreements: tuple[float, float], series: str) -> str:
    """Return what was found, and what it may come from."""
    if not is_lower and not apart:
        return ""
    parts = []
    if is_lower:
        parts.append(
            f"the head is right on {lower.held_out:.1%} of the test images and on {lower.known:.1%} in"
            " cross-validation: more than chance and the mix of classes explain"
        )
    if apart:
        parts.append(
            f"features tell test images from the others of their class (AUC {apart.auc:.2f}, 95% interval"
            f" {apart.auc_low:.2f} to {apart.auc_high:.2f}; 0.50 if they were alike)"
        )
    if apart:
        why = "another source, such as another camera, site, or way of preparing the files"
    elif series:
        why = f"images of one subject on both sides of the folds ({series}): give them a group"
    elif agreements[1] < agreements[0]:
        why = (
            f"labels given by other habits: {agreements[1]:.1%} of the test images have the label of their nearest"
            f" image, and {agreements[0]:.1%} of the others"
        )
    else:
        why = "images of one subject on both sides of the folds: if there are patients, bursts or series, give a group"
    return f"{'; '.join(parts)}. Likely reason: {why}"


def _agreement(seen: Seen, near: Neighbours) -> tuple[float, float]:
    """Return how often the nearest known image of a known and of a held-out image has its label."""
    is_known = ~seen.is_held_out[near.rows]
    first = is_known.argmax(1)
    there = is_known.any(1)
    same = seen.labels[near.rows[np.arange(len(seen)), first]] == seen.labels
    shares = [same[there & (seen.is_held_out == side)] for side in (False, True)]
    known, held_out = (float(each.mean()) if len(each) else 1.0 for each in shares)
    return known, held_out
