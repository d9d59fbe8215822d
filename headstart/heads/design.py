"""The standardised rows that a head is fitted on: held in memory, or read again at every pass if they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any, NamedTuple, Protocol

import numpy as np

from headstart.base.cores import n_cores

PROCESS_MB = 500  # what the interpreter, the libraries and the tables take; measured 300 to 400
BLOCK_ROWS = 2048  # read, standardised and multiplied at a time
_PARTS = 8  # sums of a pass; a fixed number, so that the bytes do not depend on the number of cores
_NEVER_VARIES = 1e-12  # standard deviation
_NO_VARIANCE = 1e-6  # of the largest eigenvalue; smaller ones are rounding errors of float32
_LEAST_VARIANCE = 1e-12  # of rows that are all the same


class Budget(NamedTuple):
    """The memory that a stage may take, `train_head.memory_mb`."""

    memory_mb: int

    @property
    def n_bytes(self) -> int:
        """What is left for arrays."""
        return (self.memory_mb - PROCESS_MB) * 10**6

    def holds(self, n_rows: int, n_features: int, n_taken: int = 0) -> bool:
        """Return whether so many standardised rows fit beside `n_taken` bytes."""
        return 4 * n_rows * n_features < self.n_bytes - n_taken

    def how_many(self, n_bytes_each: float, n_taken: int = 0) -> int:
        """Return how many things of this size fit beside `n_taken` bytes, one at least."""
        return max(1, int((self.n_bytes - n_taken) // max(n_bytes_each, 1)))


class Rows(Protocol):
    """Where features are read from: an array [N, ..., D], or an object that reads rows when they are indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers."""


@dataclass(frozen=True)
class Source:
    """What heads are fitted on: each image's own features and, if there are any, those of its views."""

    features: Rows  # float [N, all]
    views: Rows | None  # float [N, V, all]: further rows of the same images
    labels: np.ndarray  # int [N] in 0..C-1
    groups: np.ndarray  # [N]; images of a group are never divided
    class_weights: np.ndarray | None = None  # float [C]; a class of weight 2 counts as if each image were there twice
    columns: np.ndarray | None = None  # int [D] of all columns that the head reads; None: all

    @property
    def n_features(self) -> int:
        """D."""
        return self.features.shape[1] if self.columns is None else len(self.columns)

    @property
    def per_image(self) -> int:
        """How many rows an image has."""
        return 1 + (self.views.shape[1] if self.views is not None else 0)

    def at(self, columns: np.ndarray) -> Source:
        """Return the source of some of all columns."""
        return replace(self, columns=columns)

    def row_bytes(self) -> int:
        """How much memory the standardised rows of an image take, the column of ones included."""
        return 4 * self.per_image * (self.n_features + 1)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [len(images), D]: the images' own rows."""
        return self._chosen(self.features[images])

    def read_all(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [len(images) * per_image, D], an image's rows beside each other."""
        rows = self.read(images)
        if self.views is None:
            return rows
        both = np.concatenate([rows[:, None], self._chosen(self.views[images])], axis=1)
        return both.reshape(-1, self.n_features)

    def _chosen(self, rows: np.ndarray) -> np.ndarray:
        return (rows if self.columns is None else rows[..., self.columns]).astype(np.float32)


@dataclass(frozen=True)
class Basis:
    """The principal axes of standardised rows. They span all that the rows vary in."""

    variances: np.ndarray  # float64 [R], falling
    spanning: np.ndarray  # float [D, S]; the axes are combinations of these columns: of the features, or of the rows
    combinations: np.ndarray | None  # float64 [S, R]; None: the columns are the axes

    def along(self, vectors: np.ndarray) -> np.ndarray:
        """Return float64 [R, C]: the coordinates of vectors float [D, C]."""
        along: np.ndarray = self.spanning.T.astype(np.float64, copy=False) @ vectors
        if self.combinations is not None:
            along = self.combinations.T @ along
        return along

    def vectors(self, along: np.ndarray) -> np.ndarray:
        """Return float64 [D, C]: the vectors that have these coordinates, float [R, C]."""
        combined = along if self.combinations is None else self.combinations @ along
        found: np.ndarray = self.spanning.astype(np.float64, copy=False) @ combined
        return found


class Design:
    """The standardised rows of some images and a column of ones, in blocks: held in memory, or made at every pass.

    Every row has a weight. Mean, scale and all sums are weighted; the weights have mean 1.
    """

    def __init__(self, source: Source, images: np.ndarray, hold: bool, n_threads: int = 0) -> None:
        """Standardise by these images. `n_threads` 0: a core each."""
        self.source, self.images, self._n_threads = source, images, n_threads or n_cores()
        self.n_rows = len(images) * source.per_image
        self.n_features = source.n_features
        self.image_blocks = _image_blocks(images, source.per_image)
        self._weight_of = _weight_of(source, images)
        self.mean = self._sum(lambda rows, weights: weights @ rows.astype(np.float64)) / self.n_rows
        variance = self._sum(lambda rows, weights: weights @ np.square(rows - self.mean)) / self.n_rows
        self.scale = np.where(np.sqrt(variance) > _NEVER_VARIES, np.sqrt(variance), 1.0)
        self._held = [self._standardised(block) for block in self.image_blocks] if hold else None

    def at(self, columns: np.ndarray) -> Design:
        """Return the design of some columns of this one, which is held: its rows are copied, not standardised again."""
        assert self._held is not None
        part = object.__new__(Design)
        part.source, part.images, part._n_threads = self.source.at(columns), self.images, self._n_threads
        part.n_rows, part.n_features = self.n_rows, len(columns)
        part.image_blocks, part._weight_of = self.image_blocks, self._weight_of
        part.mean, part.scale = self.mean[columns], self.scale[columns]
        with_ones = np.append(columns, self.n_features)
        part._held = [block[:, with_ones] for block in self._held]
        return part

    @property
    def is_held(self) -> bool:
        """Whether the rows are in memory."""
        return self._held is not None

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield float32 [B, D + 1], the last column ones, and the labels int [B], in the order of the images."""
        for number in range(len(self.image_blocks)):
            yield self._block(number), self._labels(number)

    def rows_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all standardised rows, float32 [N, D], in memory, and their labels int [N]."""
        blocks, labels = zip(*self.blocks(), strict=True)
        return np.concatenate([block[:, :-1] for block in blocks]), np.concatenate(labels)

    def total(self, of_block: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Return the sums over all blocks of what `of_block` returns for rows, labels and weights.

        Rows are float32 [B, D + 1], the last column ones; labels int [B]; weights float64 [B].
        """

        def numbered(number: int) -> tuple[Any, ...]:
            labels = self._labels(number)
            return of_block(self._block(number), labels, self.weights_of(labels))

        total: tuple[Any, ...] = self._in_parts(numbered)
        return total

    def weights_of(self, labels: np.ndarray) -> np.ndarray:
        """Return float64 [len(labels)]: the weights of rows of these classes."""
        return np.ones(len(labels)) if self._weight_of is None else self._weight_of[labels]

    def class_sums(self, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of the rows of each class, float64 [C], and the weighted sum of them, float64 [C, D]."""

        def of_block(rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
            share = np.zeros((n_classes, len(rows)), np.float32)
            share[labels, np.arange(len(rows))] = weights
            return ((share @ rows).astype(np.float64),)

        (sums,) = self.total(of_block)
        return sums[:, -1], sums[:, :-1]

    @cached_property
    def basis(self) -> Basis:
        """The principal axes, from whichever is smaller: the covariance, or the inner products of the rows.

        All closed forms share this one factorisation, and descent takes its steps in it.
        """
        if self.is_held and self.n_rows < self.n_features:
            return self._basis_of_rows()

        def covariance(rows: np.ndarray, _labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
            rows = rows[:, :-1]
            return ((rows.T @ (rows * weights[:, None].astype(np.float32))).astype(np.float64),)

        (total,) = self.total(covariance)
        variances, axes = _falling(*np.linalg.eigh(total / self.n_rows), self.n_rows)
        return _signed(Basis(variances, axes, None))

    @cached_property
    def coordinates(self) -> np.ndarray:
        """Return float32 [N, R]: the rows, which are held, along the principal axes."""
        rows, labels = self.rows_and_labels()
        turned: np.ndarray
        if self.basis.combinations is None:
            turned = rows @ self.basis.spanning.astype(np.float32)
            return turned
        along = self.basis.combinations * (self.n_rows * self.basis.variances)
        turned = (along / np.sqrt(self.weights_of(labels))[:, None]).astype(np.float32)
        return turned

    def _basis_of_rows(self) -> Basis:
        rows, labels = self.rows_and_labels()
        rows *= np.sqrt(self.weights_of(labels))[:, None].astype(np.float32)
        variances, vectors = _falling(*np.linalg.eigh((rows @ rows.T).astype(np.float64) / self.n_rows), self.n_rows)
        return _signed(Basis(variances, rows.T, vectors / np.sqrt(self.n_rows * variances)))

    def _block(self, number: int) -> np.ndarray:
        return self._held[number] if self._held else self._standardised(self.image_blocks[number])

    def _labels(self, number: int) -> np.ndarray:
        return np.repeat(self.source.labels[self.image_blocks[number]], self.source.per_image)

    def _read(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(self.source.labels[images], self.source.per_image)
        return self.source.read_all(images), self.weights_of(labels)

    def _standardised(self, images: np.ndarray) -> np.ndarray:
        rows = self.source.read_all(images)
        block = np.ones((len(rows), self.n_features + 1), np.float32)
        np.subtract(rows, self.mean, out=block[:, :-1], casting="same_kind")
        block[:, :-1] /= self.scale
        return block

    def _sum(self, of_rows: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        total: np.ndarray = self._in_parts(lambda number: of_rows(*self._read(self.image_blocks[number])))
        return total

    def _in_parts(self, of_block: Callable[[int], Any]) -> Any:
        """Return the sum of `of_block` over all blocks, in an order that does not depend on the cores.

        Parts of consecutive blocks are summed as they come, so that few of these sums are in memory at a time.
        """
        parts = np.array_split(np.arange(len(self.image_blocks)), min(_PARTS, len(self.image_blocks)))

        def of_part(numbers: np.ndarray) -> Any:
            return reduce(_add, map(of_block, map(int, numbers)))

        if self._n_threads == 1 or len(parts) == 1:
            return reduce(_add, map(of_part, parts))
        with ThreadPoolExecutor(self._n_threads) as pool:
            return reduce(_add, pool.map(of_part, parts))


def _image_blocks(images: np.ndarray, per_image: int) -> list[np.ndarray]:
    step = max(1, BLOCK_ROWS // per_image)
    return [images[start : start + step] for start in range(0, len(images), step)]


def _weight_of(source: Source, images: np.ndarray) -> np.ndarray | None:
    """Return the weight of a row of each class, float64 [C], its mean over the rows 1; None: all are 1."""
    if source.class_weights is None:
        return None
    weights: np.ndarray = source.class_weights / source.class_weights[source.labels[images]].mean()
    return weights


def _falling(values: np.ndarray, vectors: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors, the largest first, without those that are rounding errors."""
    n_real = max(1, min(n_rows - 1, int((values > _NO_VARIANCE * values[-1]).sum())))  # centred rows span one less
    return np.maximum(values[::-1][:n_real], _LEAST_VARIANCE), vectors[:, ::-1][:, :n_real]


def _signed(basis: Basis) -> Basis:
    """Return the axes, each in that of its two directions which has a positive product with a fixed vector."""
    n_features = len(basis.spanning)
    sign = np.where(basis.along(np.cos(np.arange(n_features))[:, None])[:, 0] < 0, -1.0, 1.0)
    if basis.combinations is None:
        return replace(basis, spanning=basis.spanning * sign)
    return replace(basis, combinations=basis.combinations * sign)


def _add(one: Any, other: Any) -> Any:
    return tuple(map(np.add, one, other)) if isinstance(one, tuple) else one + other
