"""The contract of every kind of head. A kind is a module of this folder; `kinds.py` names them.

Heads take arrays and know nothing of images, files or parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from headstart.heads.design import Design

if TYPE_CHECKING:
    import onnx

# Part of the key that a finished head is kept under. Raise it when the same features would give another head; a test
# notices that.
VERSION = "7"

Advance = Callable[[int], None]


class Training(NamedTuple):
    """What all heads of a selection are fitted with, beside their strength. A kind ignores what it has no use for."""

    label_smoothing: float = 0.0  # share of each label that is spread over all classes, 0..1
    dropout: float = 0.0  # share of hidden units left out at each step, 0..1
    seed: int = 0


PLAIN = Training()


class Fragment(NamedTuple):
    """The part of head.onnx that a kind brings: from `features` float32 [N, D] to `logits` float32 [N, C]."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]


class Fitted(Protocol):
    """A fitted head. It takes features as they are stored: the standardisation is folded in."""

    @property
    def n_features(self) -> int:
        """D."""

    @property
    def n_classes(self) -> int:
        """C."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C] for float [N, D]; their softmax is a probability."""

    def calibrated(self, temperature: float, shift: np.ndarray | None = None) -> Fitted:
        """Return the same head with its scores divided by `temperature`, then `shift`, float [C], added."""

    def onnx(self) -> Fragment:
        """Return the ONNX nodes that compute `scores`."""


class Kind(Protocol):
    """A module that fits heads of one kind."""

    NAME: str  # in head.json
    WORDS: str  # for people
    IS_LINEAR: bool  # one Gemm in head.onnx: its heads are `Linear`, can be blended and fine-tuned
    IS_COSTLY: bool  # tried on the levels alone that served the other kinds best

    def grid(self, strengths: Sequence[float], n_rows: int, n_features: int, n_classes: int = ...) -> Sequence[float]:
        """Return the strengths that the kind tries, the strongest first, where the user asks for `strengths`.

        A kind without strengths tries one head and calls it 0. None are returned for rows that are too many for it.
        """

    def n_numbers(self, n_rows: int, n_features: int, n_classes: int) -> int:
        """Return how many numbers head.onnx holds for a head that was fitted on so many rows."""

    def fit_path(
        self,
        design: Design,
        n_classes: int,
        strengths: Sequence[float],
        training: Training = ...,
        start: Fitted | None = None,
        advance: Advance = ...,
    ) -> Iterator[Fitted]:
        """Yield a head for each strength, in their order: from the strongest penalty to the weakest.

        Each may start where the one before ended, the first at `start`, a head of this kind. `advance` is called with
        1 after every fit.
        """
