"""The contract of every kind of head. A kind is a module of this folder; `kinds.py` names them.

Heads take arrays and know nothing of images, files or parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnx

    from headstart.heads.design import Design

# Part of the key that a finished head is kept under. Raise it when the same features would give another head; a test
# notices that.
VERSION = "1"

Advance = Callable[[int], None]


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

    def calibrated(self, temperature: float) -> Fitted:
        """Return the same head with its scores divided by `temperature`."""

    def onnx(self) -> Fragment:
        """Return the ONNX nodes that compute `scores`."""


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

        Each may start where the one before ended, the first at `start`, a head of this kind. `advance` is called with
        1 after every fit.
        """
