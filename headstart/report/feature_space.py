"""Images in feature space: nearest neighbours, and maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.errors import ParamError

if TYPE_CHECKING:
    from headstart.embedding.features import Columns

_BLOCK_ROWS = 2048
_SMALLEST = 1e-12


def nearest(queries: np.ndarray, rows: Columns, k: int) -> np.ndarray:
    """Return int [Q, min(k, N)]: the indices of the rows [N, D] with the highest cosine to each query [Q, D]."""
    wanted = _unit(queries)
    numbers, cosines = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0))
    for block in _blocks(rows.shape[0]):
        numbers = np.concatenate([numbers, np.broadcast_to(block, (len(queries), len(block)))], axis=1)
        cosines = np.concatenate([cosines, wanted @ _unit(rows[block]).T], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        numbers, cosines = np.take_along_axis(numbers, best, 1), np.take_along_axis(cosines, best, 1)
    return numbers


def pca(features: np.ndarray) -> np.ndarray:
    """Return float64 [N, 2]: the first two principal components of [N, D], each with its largest value positive."""
    centred = features - features.mean(0)
    if min(centred.shape) < 3:
        return np.column_stack([centred, np.zeros((len(centred), 2))])[:, :2].astype(np.float64)
    wide = centred.astype(np.float64)
    if len(wide) <= wide.shape[1]:  # the smaller of two matrices with the same eigenvalues
        sizes, vectors = np.linalg.eigh(wide @ wide.T)
        places = vectors[:, :-3:-1] * np.sqrt(np.maximum(sizes[:-3:-1], 0))
    else:
        _, vectors = np.linalg.eigh(wide.T @ wide)
        places = wide @ vectors[:, :-3:-1]
    largest = np.take_along_axis(places, np.abs(places).argmax(0)[None], 0)
    turned: np.ndarray = places * np.where(largest < 0, -1.0, 1.0)
    return turned


def umap(features: np.ndarray, seed: int) -> np.ndarray:
    """Return float64 [N, 2] by UMAP (McInnes et al. 2018); ParamError if umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError:
        raise ParamError(
            "report.umap is true, but umap-learn is not installed. Run `pip install 'headstart[umap]'`, or set"
            " report.umap to false in params.yaml."
        ) from None
    places: np.ndarray = UMAP(random_state=seed, n_jobs=1).fit_transform(features)
    return places.astype(np.float64)


def _blocks(n_rows: int) -> Iterator[np.ndarray]:
    for start in range(0, n_rows, _BLOCK_ROWS):
        yield np.arange(start, min(start + _BLOCK_ROWS, n_rows))


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    unit: np.ndarray = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _SMALLEST)
    return unit
