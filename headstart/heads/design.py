"""The standardised rows that a head is fitted on: held in memory, or read again at every pass if they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from headstart.base.cores import n_cores
from headstart.heads.contract import Fitted
from headstart.heads.linear import Linear

PROCESS_MB = 500  # what the interpreter, the libraries and the tables take; measured 300 to 400
BLOCK_ROWS = 2048  # read, standardised and multiplied at a time
_PARTS = 8  # sums of a pass; a fixed number, so that the bytes do not depend on the number of cores
_NEVER_VARIES = 1e-12  # standard deviation


class Budget(NamedTuple):
    """The memory that a stage may take, `train_head.memory_mb`."""

    memory_mb: int

    @property
    def n_bytes(self) -> int:
        """What is left for arrays."""
        return (self.memory_mb - PROCESS_MB) * 10**6

    def holds(self, n_rows: int, n_features: int) -> bool:
        """Return whether so many standardised rows fit."""
        return 4 * n_rows * n_features < self.n_bytes

    def how_many(self, n_bytes_each: float) -> int:
        """Return how many things of this size fit, one at least."""
        return max(1, int(self.n_bytes // max(n_bytes_each, 1)))


class Rows(Protocol):
    """Where features are read from: an array [N, ..., D], or an object that reads rows when they are indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As numpy's."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers."""


class Source(NamedTuple):
    """What heads are fitted on: each image's own features and, if there are any, those of its views."""

    features: Rows  # float [N, D]
    views: Rows | None  # float [N, V, D]: further rows of the same images
    labels: np.ndarray  # int [N] in 0..C-1

    @property
    def n_features(self) -> int:
        """D."""
        return self.features.shape[1]

    @property
    def per_image(self) -> int:
        """How many rows an image has."""
        return 1 + (self.views.shape[1] if self.views is not None else 0)

    def row_bytes(self) -> int:
        """How much memory the standardised rows of an image take, the column of ones included."""
        return 4 * self.per_image * (self.n_features + 1)

    def read(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [len(images) * per_image, D], an image's rows beside each other."""
        rows = self.features[images].astype(np.float32)
        if self.views is None:
            return rows
        both = np.concatenate([rows[:, None], self.views[images].astype(np.float32)], axis=1)
        return both.reshape(-1, self.n_features)


class Design:
    """The standardised rows of some images and a column of ones, in blocks: held in memory, or made at every pass."""

    def __init__(self, source: Source, images: np.ndarray, hold: bool, n_threads: int = 0) -> None:
        """Standardise by these images. `n_threads` 0: a core each."""
        self._source, self._n_threads = source, n_threads or n_cores()
        step = max(1, BLOCK_ROWS // source.per_image)
        self._blocks = [images[start : start + step] for start in range(0, len(images), step)]
        self.n_rows = len(images) * source.per_image
        self.n_features = source.n_features
        self.mean = self._sum(lambda rows: rows.sum(0, dtype=np.float64)) / self.n_rows
        variance = self._sum(lambda rows: np.square(rows - self.mean).sum(0)) / self.n_rows
        self.scale = np.where(np.sqrt(variance) > _NEVER_VARIES, np.sqrt(variance), 1.0)
        self._held = [self._standardised(block) for block in self._blocks] if hold else None

    def total(self, of_block: Callable[[np.ndarray, np.ndarray], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Return the sums of what `of_block` returns for float32 [B, D + 1] and its labels int [B], over all blocks."""

        def numbered(number: int) -> tuple[Any, ...]:
            block = self._held[number] if self._held else self._standardised(self._blocks[number])
            return of_block(block, np.repeat(self._source.labels[self._blocks[number]], self._source.per_image))

        return tuple(sum(part) for part in zip(*self._in_parts(numbered), strict=True))

    def on_raw_features(self, weight: np.ndarray, bias: np.ndarray) -> Linear:
        """Return the head that does on features what weight [D, C] and bias [C] do on standardised ones."""
        raw = weight / self.scale[:, None]
        return Linear(raw, bias - self.mean @ raw)

    def on_standardised(self, head: Linear) -> tuple[np.ndarray, np.ndarray]:
        """Undo `on_raw_features`."""
        return head.weight * self.scale[:, None], head.bias + self.mean @ head.weight

    def _standardised(self, images: np.ndarray) -> np.ndarray:
        rows = self._source.read(images)
        block = np.ones((len(rows), self.n_features + 1), np.float32)
        np.subtract(rows, self.mean, out=block[:, :-1], casting="same_kind")
        block[:, :-1] /= self.scale
        return block

    def _sum(self, of_rows: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total: np.ndarray = sum(self._in_parts(lambda number: of_rows(self._source.read(self._blocks[number]))))
        return total

    def _in_parts(self, of_block: Callable[[int], Any]) -> list[Any]:
        """Return sums of `of_block` over consecutive blocks, in an order that does not depend on the cores."""
        parts = np.array_split(np.arange(len(self._blocks)), min(_PARTS, len(self._blocks)))

        def of_part(numbers: np.ndarray) -> Any:
            total = of_block(int(numbers[0]))
            for number in numbers[1:]:
                total = _add(total, of_block(int(number)))
            return total

        if self._n_threads == 1 or len(parts) == 1:
            return [of_part(part) for part in parts]
        with ThreadPoolExecutor(self._n_threads) as pool:
            return list(pool.map(of_part, parts))


def scores_of(head: Fitted, features: Rows, images: np.ndarray) -> np.ndarray:
    """Return float64 [len(images), C]: a head's scores of the images of these numbers, read in blocks."""
    parts = (images[start : start + BLOCK_ROWS] for start in range(0, len(images), BLOCK_ROWS))
    return np.concatenate([head.scores(features[part]) for part in parts])


def _add(one: Any, other: Any) -> Any:
    return tuple(map(np.add, one, other)) if isinstance(one, tuple) else one + other
