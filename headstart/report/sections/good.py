"""How good is it, and how sure are we?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.evaluation import folder
from headstart.evaluation.folder import Comparison, TestScores
from headstart.evaluation.metrics import Interval
from headstart.report import figures
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Good:
    """The scores, compared with the majority class and the accepted model."""

    test: TestScores
    comparison: Comparison | None  # None: no model has been accepted
    template: str = "good"

    @classmethod
    def of(cls, run: Artefacts) -> Good:
        """Return the section of a run."""
        return cls(run.scores, folder.comparison(run.layout.evaluation))

    def figures(self) -> Mapping[str, str]:
        """Return the comparison of accuracies."""
        test = self.test
        rows: list[tuple[str, float, Interval | None]] = [
            ("this model", test.accuracy, Interval(test.accuracy_low, test.accuracy_high))
        ]
        if self.comparison:
            other = self.comparison.accepted
            interval = Interval(other.accuracy_low, other.accuracy_high)
            rows.append((f"accepted, {other.version}", other.accuracy, interval))
        rows.append(("always the most frequent class", test.majority_accuracy, None))
        return {"comparison": figures.comparison(rows)}
