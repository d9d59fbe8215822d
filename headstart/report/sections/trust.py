"""Can its probabilities be believed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headstart.base.label_sets import members
from headstart.evaluation.folder import LabelSets, TestScores
from headstart.evaluation.metrics import Bin, RiskCoverage, before_calibration, reliability, risk_coverage
from headstart.onnx.head_folder import CalibrationRecord
from headstart.report import figures
from headstart.report.artefacts import Artefacts


class Held(NamedTuple):
    """How often the sets of the held-out images of a class hold it."""

    label: str
    n_held: int
    n_images: int


@dataclass(frozen=True)
class Trust:
    """Calibration, the effect of abstaining, and label sets."""

    test: TestScores
    calibration: CalibrationRecord
    uncalibrated: Sequence[Bin]
    calibrated: Sequence[Bin]
    curve: RiskCoverage
    sets: LabelSets
    sizes: np.ndarray  # int [C + 1], held-out images by the number of labels in their set
    lowest: Held  # of the class whose images' sets hold it least often
    template: str = "trust"

    @classmethod
    def of(cls, run: Artefacts) -> Trust:
        """Return the section of a run."""
        labels, probabilities, n_bins = run.test.labels, run.probabilities, run.params.evaluate.ece_bins
        held = members(probabilities, np.array(run.label_sets.quantiles))
        raw = before_calibration(probabilities, run.choice.temperature, np.array(run.head.training.shift))
        return cls(
            run.scores,
            run.choice.calibration,
            reliability(labels, raw, n_bins),
            reliability(labels, probabilities, n_bins),
            risk_coverage(probabilities.max(1), probabilities.argmax(1) == labels),
            run.label_sets,
            np.bincount(held.sum(1), minlength=len(run.classes) + 1),
            least_held(held, labels, run.classes),
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature ships."""
        return self.calibration.outcome == "fitted"

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.sizes) - 1

    def share_of(self, n_labels: int) -> float:
        """Return the share of the held-out images whose sets have so many labels."""
        return float(self.sizes[n_labels] / self.sizes.sum())

    def figures(self) -> Mapping[str, str]:
        """Return the reliability diagram and the risk-coverage curve."""
        return {
            "set_sizes": figures.set_sizes(self.sizes),
            "reliability": figures.reliability(self.uncalibrated if self.is_calibrated else [], self.calibrated),
            "risk_coverage": figures.risk_coverage(self.curve, self.test.coverage, self.test.selective_accuracy),
        }


def least_held(held: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Held:
    """Return the class whose images' sets, bool [N, C], hold it least often."""
    right = held[np.arange(len(labels)), labels]
    there = [(float(right[labels == label].mean()), int(label)) for label in np.unique(labels)]
    _, lowest = min(there)
    return Held(classes[lowest], int(right[labels == lowest].sum()), int((labels == lowest).sum()))
