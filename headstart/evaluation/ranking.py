"""How well a probability ranks the images of one class above all others: the ROC and the precision-recall curve.

Throughout, `is_positive` is bool [N], with both values present, and `scores` float [N], higher for the positive class.
Images of equal score are counted together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Roc(NamedTuple):
    """The receiver operating characteristic (Fawcett 2006), from (0, 0) to (1, 1)."""

    false_positive_rate: np.ndarray  # float64 [K], share of the negatives that are called positive
    true_positive_rate: np.ndarray  # float64 [K], share of the positives that are

    @property
    def area(self) -> float:
        """The area under the curve: the probability that a positive image scores higher than a negative one."""
        return float(np.trapezoid(self.true_positive_rate, self.false_positive_rate))


class PrecisionRecall(NamedTuple):
    """Precision and recall of calling the best-scored images positive, for each score, the highest first."""

    recall: np.ndarray  # float64 [K]
    precision: np.ndarray  # float64 [K]

    @property
    def average_precision(self) -> float:
        """The mean of the precision over recall, as steps (Davis & Goadrich 2006 warn of straight lines)."""
        return float((self.precision * np.diff(self.recall, prepend=0)).sum())


def roc(is_positive: np.ndarray, scores: np.ndarray) -> Roc:
    """Return the ROC curve."""
    hits, n_called = _counts(is_positive, scores)
    n_positive = int(is_positive.sum())
    false_alarms = (n_called - hits) / (len(scores) - n_positive)
    return Roc(np.append(0.0, false_alarms), np.append(0.0, hits / n_positive))


def precision_recall(is_positive: np.ndarray, scores: np.ndarray) -> PrecisionRecall:
    """Return the precision-recall curve."""
    hits, n_called = _counts(is_positive, scores)
    return PrecisionRecall(hits / is_positive.sum(), hits / n_called)


def _counts(is_positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each score, the highest first: how many images score at least it, positive ones and all."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return np.cumsum(is_positive[order])[last], last + 1
