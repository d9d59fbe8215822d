"""Growing parts of the images, on which backbones are raced."""

from __future__ import annotations

import numpy as np

_HALVINGS = 3
_FEWEST, _FEWEST_OF_CLASS = 60, 8  # groups of a part: the test of a race takes them as its observations


def growing(labels: np.ndarray, groups: np.ndarray, n_images: int, least: int, seed: int) -> list[np.ndarray]:
    """Return sorted numbers of images: an eighth, a quarter, a half and all of about `n_images` of the images.

    Each part holds the one before. Groups [N] stay whole, and classes are as frequent as in labels int [N], but for
    `least` groups that have an image of each at least, if there are so many, as `assign_folds` counts them. Parts that
    would have too few groups to tell anything, or no more than the one before, are left out.
    """
    queue, sizes, n_needed = _queue(labels, groups, least, seed)
    reached = np.cumsum(sizes)
    fewest = max(_FEWEST, _FEWEST_OF_CLASS * len(np.unique(labels)), n_needed)
    n_images = min(max(n_images, int(reached[n_needed - 1])), len(labels))
    wanted = [n_images >> halvings for halvings in range(_HALVINGS, -1, -1)]
    _, group_of = np.unique(groups, return_inverse=True)
    whole = max(n_needed, int((reached <= n_images).sum()))
    n_groups = {int((reached <= size).sum()) for size in wanted}  # of each part
    counts = sorted({whole, *(count for count in n_groups if fewest <= count < whole)})
    return [np.flatnonzero(np.isin(group_of, queue[:count])) for count in counts]


def _queue(labels: np.ndarray, groups: np.ndarray, least: int, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the groups in the order in which they enter, the images of each, and how many come first for classes.

    The groups whose first image is of a class are spread evenly over the order. The first `least` that have any image
    of a class come before all others.
    """
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    of_class = labels[first]
    place = np.empty(len(first))
    random = np.random.default_rng(seed)
    for label in np.unique(of_class):
        own = random.permutation(np.flatnonzero(of_class == label))
        place[own] = (np.arange(len(own)) + random.random()) / len(own)
    is_needed = np.zeros(len(first), bool)
    for label in np.unique(labels):
        having = np.unique(group_of[labels == label])
        is_needed[having[np.argsort(place[having], kind="stable")[:least]]] = True
    queue = np.lexsort((place, ~is_needed))
    return queue, np.bincount(group_of)[queue], int(is_needed.sum())
