"""What every kind of head has to offer. A kind is a module of this folder; `kinds.py` names them.

Heads take arrays and know nothing of images, files or parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnx

    from headstart.heads.design import Design

# Of all that a head follows from beside its features: a finished head is kept under it. Count it up when other heads
# would come out of the same features; a test notices that.
VERSION = "1"

Advance = Callable[[int], None]


class Fragment(NamedTuple):
    """The part of head.onnx that a kind brings: from `features` float32 [N, D] to `logits` float32 [N, C]."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]


class Fitted(Protocol):
    """A head that has learned. It acts on features as they are stored: a standardiser is folded in."""

    @property
    def n_features(self) -> int:
        """D."""

    @property
    def n_classes(self) -> int:
        """C."""

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Return float64 [N, C] for float [N, D]; their softmax is a probability."""

    def calibrated(self, temperature: float) -> Fitted:
        """Return the same head with its scores divided by `temperature`."""

    def onnx(self) -> Fragment:
        """Return what computes `scores` in ONNX."""


class Kind(Protocol):
    """A module that fits heads of one kind."""

    NAME: str  # in head.json
    WORDS: str  # for people

    def fit_path(
        self,
        design: Design,
        n_classes: int,
        strengths: Sequence[float],
        start: Fitted | None = None,
        advance: Advance = ...,
    ) -> Iterator[Fitted]:
        """Yield a head for each strength, in their order: from the strongest penalty to the weakest.

        Each may start where the one before ended, the first at `start`, a head of this kind. `advance` is told of
        every fit.
        """
