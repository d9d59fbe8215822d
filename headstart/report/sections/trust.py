"""Can its probabilities be believed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.evaluation.folder import TestScores
from headstart.evaluation.metrics import Bin, RiskCoverage, before_calibration, reliability, risk_coverage
from headstart.onnx.head_folder import CalibrationRecord
from headstart.report import figures
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Trust:
    """Calibration, and the effect of abstaining."""

    test: TestScores
    calibration: CalibrationRecord
    uncalibrated: Sequence[Bin]
    calibrated: Sequence[Bin]
    curve: RiskCoverage
    template: str = "trust"

    @classmethod
    def of(cls, run: Artefacts) -> Trust:
        """Return the section of a run."""
        labels, probabilities, n_bins = run.test.labels, run.probabilities, run.params.evaluate.ece_bins
        raw = before_calibration(probabilities, run.choice.temperature, np.array(run.head.training.shift))
        return cls(
            run.scores,
            run.choice.calibration,
            reliability(labels, raw, n_bins),
            reliability(labels, probabilities, n_bins),
            risk_coverage(probabilities.max(1), probabilities.argmax(1) == labels),
        )

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature ships."""
        return self.calibration.outcome == "fitted"

    def figures(self) -> Mapping[str, str]:
        """Return the reliability diagram and the risk-coverage curve."""
        return {
            "reliability": figures.reliability(self.uncalibrated if self.is_calibrated else [], self.calibrated),
            "risk_coverage": figures.risk_coverage(self.curve, self.test.coverage, self.test.selective_accuracy),
        }
