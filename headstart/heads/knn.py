"""The k nearest training rows by the cosine, each with a vote for its class (Cover & Hart 1967).

A strength is k. Scores are logarithms of the votes, to which each class has 1 / C added. The head ships its training
rows, so it is tried only where they are at most `MAX_NUMBERS` numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.heads.contract import PLAIN, Advance, Fitted, Fragment, Training
from headstart.heads.design import Design

NAME = "knn"
WORDS = "k nearest training images, by the cosine"
IS_LINEAR, IS_COSTLY = False, True
MAX_NUMBERS = 16_000_000  # 64 MB in head.onnx
_NEIGHBOURS = (25.0, 9.0, 3.0)
_SMALLEST = 1e-12
_PAIRS = 2_000_000  # of rows that are compared at a time, 16 bytes each


def grid(strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = 0) -> Sequence[float]:
    """Return the numbers of neighbours to try; none where rows and votes are more than `MAX_NUMBERS`."""
    is_small = n_rows * (n_features + n_classes) <= MAX_NUMBERS
    return tuple(k for k in _NEIGHBOURS if k < n_rows) if is_small else ()


@dataclass(frozen=True)
class Neighbours:
    """The training rows and their votes."""

    mean: np.ndarray  # float32 [D]
    scale: np.ndarray  # float32 [D]
    directions: np.ndarray  # float32 [D, T], unit columns: the standardised training rows
    votes: np.ndarray  # float32 [T, C], one for the row's class, or its weight
    k: int
    temperature: float
    shift: np.ndarray  # float64 [C]

    @property
    def n_features(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def n_classes(self) -> int:
        """C."""
        return int(self.votes.shape[1])

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C] for float [N, D]."""
        rows = (features.astype(np.float32) - self.mean) / self.scale
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SMALLEST)
        step = max(1, _PAIRS // self.directions.shape[1])
        votes = np.concatenate([self._votes(rows[start : start + step]) for start in range(0, len(rows), step)])
        scores: np.ndarray = np.log(votes + 1 / self.n_classes) / self.temperature + self.shift
        return scores

    def _votes(self, rows: np.ndarray) -> np.ndarray:
        nearest = np.argpartition(-(rows @ self.directions), self.k - 1, axis=1)[:, : self.k]
        votes: np.ndarray = self.votes[nearest].sum(1, dtype=np.float64)
        return votes

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Neighbours:
        """Return the same head with its scores divided by `temperature`, then `shift`, float [C], added."""
        shifted = self.shift / temperature + (0 if shift is None else shift)
        return replace(self, temperature=self.temperature * temperature, shift=shifted)

    def onnx(self) -> Fragment:
        """Return a matrix product, TopK, and a sum of votes."""
        from onnx import helper, numpy_helper

        nodes = [
            helper.make_node("Sub", ["features", "head_mean"], ["head_centred"]),
            helper.make_node("Div", ["head_centred", "head_scale"], ["head_rows"]),
            helper.make_node("LpNormalization", ["head_rows"], ["head_units"], axis=1, p=2),
            helper.make_node("MatMul", ["head_units", "head_directions"], ["head_cosines"]),
            helper.make_node("TopK", ["head_cosines", "head_k"], ["head_nearest_cosines", "head_nearest"], axis=1),
            helper.make_node("Gather", ["head_votes", "head_nearest"], ["head_each_vote"], axis=0),
            helper.make_node("ReduceSum", ["head_each_vote", "head_axis"], ["head_sum"], keepdims=0),
            helper.make_node("Add", ["head_sum", "head_pseudo_vote"], ["head_smoothed"]),
            helper.make_node("Log", ["head_smoothed"], ["head_log"]),
            helper.make_node("Div", ["head_log", "head_temperature"], ["head_divided"]),
            helper.make_node("Add", ["head_divided", "head_shift"], ["logits"]),
        ]
        values = {
            "head_mean": self.mean,
            "head_scale": self.scale,
            "head_directions": self.directions,
            "head_votes": self.votes,
            "head_pseudo_vote": np.float32(1 / self.n_classes),
            "head_temperature": np.float32(self.temperature),
            "head_shift": self.shift.astype(np.float32),
            "head_k": np.array([self.k], np.int64),
            "head_axis": np.array([1], np.int64),
        }
        return Fragment(nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()])


def n_numbers(n_rows: int, n_features: int, n_classes: int) -> int:
    """Return T * (D + C) and the standardiser."""
    return n_rows * (n_features + n_classes) + 2 * n_features


def fit_path(
    design: Design,
    n_classes: int,
    strengths: Sequence[float],
    training: Training = PLAIN,
    start: Fitted | None = None,
    advance: Advance = lambda n: None,
) -> Iterator[Neighbours]:
    """Yield the head of each number of neighbours. See `contract.Kind`."""
    rows, labels = design.rows_and_labels()
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _SMALLEST)
    votes = np.zeros((len(labels), n_classes), np.float32)
    votes[np.arange(len(labels)), labels] = design.weights_of(labels)
    mean, scale = design.mean.astype(np.float32), design.scale.astype(np.float32)
    for strength in strengths:
        advance(1)
        k = min(round(strength), len(labels))
        yield Neighbours(mean, scale, np.ascontiguousarray(rows.T), votes, k, 1.0, np.zeros(n_classes))
