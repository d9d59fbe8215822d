"""Cross-validation folds that keep groups whole, and a sample of the images where there are too many."""

from __future__ import annotations

import numpy as np

from headstart.base.errors import DataError

_DIGITS = 9  # of shares of a class, so that sums of them tie where they are equal


def draw(labels: np.ndarray, groups: np.ndarray, n_images: int, seed: int, least: int = 2) -> np.ndarray:
    """Return the sorted numbers of all images, or of about `n_images` in whole groups.

    Every class has `least` groups at least, if there are so many of it.
    """
    if n_images >= len(labels):
        return np.arange(len(labels))
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_class = order[np.argsort(labels[first][order], kind="stable")]
    of_class = labels[first][by_class]
    starts = np.flatnonzero(np.concatenate([[True], of_class[1:] != of_class[:-1]]))
    number = np.arange(len(of_class)) - np.repeat(starts, np.diff(np.append(starts, len(of_class))))  # within its class
    needed = by_class[number < least]
    queue = np.concatenate([needed, order[~np.isin(order, needed)]])
    sizes = np.bincount(group_of)[queue]
    taken = np.cumsum(sizes) <= n_images
    taken[: len(needed)] = True
    return np.flatnonzero(np.isin(group_of, queue[taken]))


def assign_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int [N]: classes evenly spread, groups whole.

    Groups are dealt one by one, large ones first, each to the fold that has fewest images of its classes: the method of
    scikit-learn's StratifiedGroupKFold, whose import alone takes longer than fitting a head. Fewer folds are used where
    a class has fewer groups; DataError where it has only one.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))  # images of each group and class
    np.add.at(counts, (group_of, labels), 1)
    per_class = counts.sum(0)
    fewest = int((counts > 0).sum(0)[per_class > 0].min())
    if fewest < 2:
        raise DataError(
            "a class has a single group of images in train and val together, so nothing can be held out from it."
            " Two or more were expected. Add images of it, or remove the class."
        )
    share = counts / np.maximum(per_class, 1)  # of its class that each group has
    held = np.zeros((min(folds, fewest), counts.shape[1]))  # the same of each fold, as it fills
    fold_of_group = np.zeros(len(names), np.int64)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    for group in shuffled[np.argsort(-counts.sum(1)[shuffled], kind="stable")]:
        crowding, size = held @ (share[group] > 0), held.sum(1)
        fold = int(np.lexsort((size.round(_DIGITS), crowding.round(_DIGITS)))[0])
        held[fold] += share[group]
        fold_of_group[group] = fold
    return fold_of_group[group_of]
