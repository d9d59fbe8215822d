"""Images whose label may be wrong, the most suspicious first.

The ranking is by the normalised margin (Northcutt, Jiang & Chuang 2021, section 3.3; cleanlab's `normalized_margin`):
the probability of the given label less that of the most probable other one, by a head that was not fitted on the image.
docs/evaluation.md compares it with other rankings, on labels that were made wrong on purpose.
"""

from __future__ import annotations

import numpy as np


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
