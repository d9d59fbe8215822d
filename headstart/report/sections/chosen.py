"""How was it chosen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.evaluation.folder import Candidate, Contest
from headstart.onnx import finetune_folder, head_folder
from headstart.report import figures
from headstart.report.artefacts import Artefacts


@dataclass(frozen=True)
class Chosen:
    """Frozen or fine-tuned, the head's cross-validation, and whether more images would help."""

    chosen: Candidate
    contest: Contest | None  # None if fine-tuning is off
    history: Sequence[Mapping[str, Any]]  # one entry per epoch of fine-tuning
    n_folds: int
    candidates: Sequence[Mapping[str, Any]]  # sweep.Candidate
    learning: Sequence[Mapping[str, Any]]  # learning_curve.Point
    template: str = "chosen"

    @classmethod
    def of(cls, run: Artefacts) -> Chosen:
        """Return the section of a run."""
        contest = run.choice.contest
        return cls(
            run.choice.chosen,
            contest,
            finetune_folder.history(run.layout.finetune) if contest else [],
            run.head.n_folds,
            head_folder.candidates(run.layout.head),
            head_folder.learning_curve(run.layout.head),
        )

    @property
    def lesson(self) -> str:
        """What the learning curve shows, in words."""
        return lesson(self.learning)

    def figures(self) -> Mapping[str, str]:
        """Return the learning curve and, with fine-tuning, its losses."""
        drawn = {"learning_curve": figures.learning_curve(self.learning)}
        if self.contest:
            drawn["history"] = figures.history(self.history, self.contest.best_epoch)
        return drawn


def lesson(points: Sequence[Mapping[str, Any]]) -> str:
    """Return, in words, whether the end of the learning curve promises a gain from more images."""
    half, whole = points[-2:]
    gain = 100 * (whole["accuracy"] - half["accuracy"])
    spread = 100 * max(half["accuracy_std"], whole["accuracy_std"])
    told = f"From {half['n_images']:,} to {whole['n_images']:,} images, accuracy changed by {gain:+.1f} points"
    if gain > spread:
        return f"{told}, more than the spread between folds ({spread:.1f}): more labelled images are likely to help."
    if gain > 0:
        return f"{told}, within the spread between folds ({spread:.1f}): more labelled images may help a little."
    return f"{told}: more labelled images are unlikely to help; cleaner labels or another backbone may."
