"""How good is it, and how sure are we?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headstart.base import dataset
from headstart.base.intervals import Interval
from headstart.evaluation import folder, imbalance
from headstart.evaluation.folder import Comparison, NotComparable, TestScores
from headstart.report import figures
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Good:
    """The scores, compared with the majority class and the accepted model."""

    test: TestScores
    comparison: Comparison | NotComparable | None  # None: no model has been accepted
    warnings: Sequence[str] = ()  # what a reader should know before the figures
    template: str = "good"

    @classmethod
    def of(cls, run: Artefacts) -> Good:
        """Return the section of a run."""
        counts = run.data.of(dataset.TRAIN, dataset.VAL).counts(len(run.classes))
        imbalanced = imbalance.warning(run.classes, counts, run.scores.majority_accuracy)
        told = (run.split_summary.decided.told(), imbalanced)
        warnings = [*(each for each in told if each), *(run.audit.warnings if run.audit else [])]
        return cls(run.scores, folder.comparison(run.layout.evaluation), warnings)

    def figures(self) -> Mapping[str, str]:
        """Return the comparison of accuracies, below the headline if that is another score."""
        test, first = self.test, self.test.headline
        rows: list[tuple[str, float, Interval | None]] = []
        if first.name != "accuracy":
            rows.append((f"this model, {first.name}", first.value, Interval(first.low, first.high)))
        rows.append(("this model", test.accuracy, Interval(test.accuracy_low, test.accuracy_high)))
        if isinstance(self.comparison, Comparison):
            other = self.comparison.accepted
            interval = Interval(other.accuracy_low, other.accuracy_high)
            rows.append((f"accepted, {other.version}", other.accuracy, interval))
        rows.append(("always the most frequent class", test.majority_accuracy, None))
        return {"comparison": figures.comparison(rows)}
