"""The nearest images of each image, by the cosine of their features."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

EXACT_UP_TO = 20_000  # images; above, the search is approximate
_BLOCK = 1024  # rows whose cosines to all others are in memory at a time
_AXES = 128  # of the principal components that the approximate search works in
_SAMPLE = 10_000  # rows that these are fitted to
_MIN_TRAINED = 39  # rows a cell, from which faiss finds its centre well
_MAX_TRAINED = 64  # rows a cell, more are not looked at for its centre
_PROBED = 16  # cells that the approximate search looks into
_SMALLEST = 1e-12


class Rows(Protocol):
    """Rows that are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, D]."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers."""


class Neighbours(NamedTuple):
    """The nearest rows of each row, itself left out, the nearest first."""

    rows: np.ndarray  # int64 [N, k]
    cosines: np.ndarray  # float32 [N, k]
    is_exact: bool


def nearest(features: Rows, k: int) -> Neighbours:
    """Return the `k` nearest rows of each row of [N, D], or N - 1 where there are fewer.

    Exact, block by block, up to `EXACT_UP_TO` rows. Above, the rows are projected on their principal components and
    searched by an inverted file (Jegou et al. 2011, in faiss): 512 bytes a row in memory, whatever D is.
    """
    n_rows = features.shape[0]
    k = min(k, n_rows - 1)
    if n_rows > EXACT_UP_TO:
        return _approximate(features, k)
    units = unit(features[np.arange(n_rows)])
    found, cosines = np.empty((n_rows, k), np.int64), np.empty((n_rows, k), np.float32)
    for start in range(0, n_rows, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n_rows))
        products = units[block] @ units.T
        products[np.arange(len(block)), block] = -np.inf
        found[block], cosines[block] = _largest(products, k)
    return Neighbours(found, cosines, True)


def unit(rows: np.ndarray) -> np.ndarray:
    """Return the rows at length 1, float32 [N, D]."""
    values = rows.astype(np.float32, copy=False)
    scaled: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), _SMALLEST)
    return scaled


def cosines(features: Rows, pairs: np.ndarray) -> np.ndarray:
    """Return float32 [P]: the exact cosine of each pair of rows, int [P, 2]."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        one, other = (unit(features[side]) for side in pairs[start : start + _BLOCK].T)
        found[start : start + _BLOCK] = (one * other).sum(1)
    return found


def nearest_of(features: Rows, rows: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return int64 [R]: for each of the `rows`, the nearest other row with the label that is `wanted` [R]; -1: none.

    `features` [N, D], `labels` int [N]. The features of `rows` are in memory, those of the others block by block.
    """
    own = unit(features[rows])
    best, found = np.full(len(rows), -np.inf), np.full(len(rows), -1)
    for start in range(0, features.shape[0], _BLOCK):
        block = np.arange(start, min(start + _BLOCK, features.shape[0]))
        products = own @ unit(features[block]).T
        products[(labels[block] != wanted[:, None]) | (block == rows[:, None])] = -np.inf
        at = products.argmax(1)
        value = products[np.arange(len(rows)), at]
        is_nearer = value > best
        best[is_nearer], found[is_nearer] = value[is_nearer], block[at[is_nearer]]
    return found


def vote(neighbours: Neighbours, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return float64 [N, C]: the share of each class among an image's nearest, weighted by their cosines."""
    n_rows, k = neighbours.rows.shape
    votes = np.full((n_rows, n_classes), 1e-3)
    weights = np.maximum(neighbours.cosines, _SMALLEST).astype(np.float64)
    np.add.at(votes, (np.repeat(np.arange(n_rows), k), labels[neighbours.rows].ravel()), weights.ravel())
    shares: np.ndarray = votes / votes.sum(1, keepdims=True)
    return shares


def _largest(products: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    some = np.argpartition(-products, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(products, some, 1)
    order = np.lexsort((some, -values))  # ties by number, so that the result does not depend on the partition
    return np.take_along_axis(some, order, 1), np.take_along_axis(values, order, 1)


def _approximate(features: Rows, k: int) -> Neighbours:
    import faiss

    n_rows = features.shape[0]
    sample = unit(features[np.linspace(0, n_rows - 1, _SAMPLE).astype(np.int64)])
    mean = sample.mean(0)
    _, axes = np.linalg.eigh(np.cov(sample - mean, rowvar=False))
    projection = np.ascontiguousarray(axes[:, : -_AXES - 1 : -1].astype(np.float32))
    reduced = np.empty((n_rows, projection.shape[1]), np.float32)
    for start in range(0, n_rows, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n_rows))
        reduced[block] = unit((unit(features[block]) - mean) @ projection)
    cells = min(int(4 * n_rows**0.5), n_rows // _MIN_TRAINED)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(reduced.shape[1]), reduced.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid = _MAX_TRAINED
    n_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # else the cells depend on the number of cores
    try:
        index.train(reduced)
    finally:
        faiss.omp_set_num_threads(n_threads)
    index.add(reduced)
    index.nprobe = _PROBED
    found, near = np.empty((n_rows, k), np.int64), np.empty((n_rows, k), np.float32)
    for start in range(0, n_rows, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n_rows))
        values, rows = index.search(reduced[block], k + 1)
        is_other = (rows != block[:, None]) & (rows >= 0)
        order = np.argsort(~is_other, axis=1, kind="stable")[:, :k]
        found[block] = np.where(
            np.take_along_axis(is_other, order, 1), np.take_along_axis(rows, order, 1), block[:, None]
        )
        near[block] = np.where(np.take_along_axis(is_other, order, 1), np.take_along_axis(values, order, 1), -1.0)
    return Neighbours(found, near, False)
