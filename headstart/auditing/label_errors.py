"""Images whose label may be wrong, the most suspicious first.

The ranking is by the normalised margin (Northcutt, Jiang & Chuang 2021, section 3.3; cleanlab's `normalized_margin`):
the probability of the given label less that of the most probable other one, by a head that was not fitted on the image.
docs/evaluation.md compares it with other rankings, on labels that were made wrong on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_BLOCK = 4096  # images whose probabilities are in memory


class Judged(NamedTuple):
    """What is left of the probabilities of all classes: a few numbers an image, however many classes there are."""

    own: np.ndarray  # float64 [N], of the given label; NaN where nobody judged the image
    other: np.ndarray  # float64 [N], of the most probable other label
    suggested: np.ndarray  # int64 [N], that label; -1 where nobody judged the image

    @property
    def is_known(self) -> np.ndarray:
        """Bool [N]: whether the image was judged."""
        known: np.ndarray = self.suggested >= 0
        return known

    def predicted(self, labels: np.ndarray) -> np.ndarray:
        """Return int64 [N]: the most probable label, of several the first, as argmax has it."""
        is_own = (self.own > self.other) | ((self.own == self.other) & (labels < self.suggested))
        return np.where(is_own, labels, self.suggested)


def nobody(n_images: int) -> Judged:
    """Return what is known of images that were not judged."""
    return Judged(np.full(n_images, np.nan), np.full(n_images, np.nan), np.full(n_images, -1))


def judge(found: Judged, rows: np.ndarray, labels: np.ndarray, some: Callable[[np.ndarray], np.ndarray]) -> None:
    """Fill in the images of these numbers, of `labels` [N]; `some` gives the probabilities [n, C] of some numbers."""
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        probabilities, given = some(block), labels[block]
        others = suggested(probabilities, given)
        numbers = np.arange(len(block))
        found.own[block], found.other[block] = probabilities[numbers, given], probabilities[numbers, others]
        found.suggested[block] = others


def margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float64 [N] in -1..1, the lower the more suspicious, for probabilities [N, C] and labels int [N]."""
    rows = np.arange(len(labels))
    others = probabilities.astype(np.float64)
    own = others[rows, labels]
    others[rows, labels] = -1
    found: np.ndarray = own - others.max(1)
    return found


def suggested(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return int [N]: the most probable label beside the one given."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    found: np.ndarray = others.argmax(1)
    return found
