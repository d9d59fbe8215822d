"""How well does it tell the two classes apart? For two classes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headstart.evaluation import ranking
from headstart.report import figures
from headstart.report.artefacts import Artefacts


class Found(NamedTuple):
    """One of the two classes, as the answers of the model find it."""

    name: str
    curve: ranking.PrecisionRecall
    precision: float | None  # of the answers; None if there is no such answer
    recall: float


@dataclass(frozen=True)
class Ranking:
    """ROC and precision-recall curve, with the points at which the model answers."""

    roc: ranking.Roc  # of the second class
    classes: Sequence[Found]  # both
    template: str = "ranking"

    @classmethod
    def of(cls, run: Artefacts) -> Ranking | None:
        """Return the section of a run; None unless there are two classes, both with held-out images."""
        return between(run.classes, run.test.labels, run.probabilities)

    @property
    def false_positive_rate(self) -> float:
        """The share of the images of the first class that are named as the second."""
        return 1 - self.classes[0].recall

    def figures(self) -> Mapping[str, str]:
        """Return both curves."""
        first, second = self.classes
        return {
            "roc": figures.roc(self.roc, (self.false_positive_rate, second.recall), first.name, second.name),
            "precision_recall": figures.precision_recall(
                [(each.name, each.curve) for each in self.classes],
                [(each.recall, each.precision) for each in self.classes],
            ),
        }


def between(classes: Sequence[str], labels: np.ndarray, probabilities: np.ndarray) -> Ranking | None:
    """Return the section; None unless there are two classes, both among `labels` [N]. `probabilities` [N, 2]."""
    if len(classes) != 2 or len(set(labels.tolist())) < 2:
        return None
    predicted, found = probabilities.argmax(1), []
    for index, name in enumerate(classes):
        called, is_one = predicted == index, labels == index
        n_right = int((called & is_one).sum())
        precision = n_right / int(called.sum()) if called.any() else None
        curve = ranking.precision_recall(is_one, probabilities[:, index])
        found.append(Found(name, curve, precision, n_right / int(is_one.sum())))
    return Ranking(ranking.roc(labels == 1, probabilities[:, 1]), found)
