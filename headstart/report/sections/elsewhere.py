"""Is it as good elsewhere? For runs with images without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.base.intervals import Interval
from headstart.evaluation import elsewhere
from headstart.evaluation.elsewhere import ElsewhereRecord
from headstart.onnx import adapt_folder
from headstart.onnx.adapt_folder import AdaptRecord
from headstart.report import figures
from headstart.report.artefacts import Artefacts

_WORDS = {
    "none": "the head as it is",
    "standardise": "mean and scale of each feature as before",
    "coral": "covariance as before (CORAL)",
    "mmd": "least discrepancy, by kernels (MMD)",
    "transport": "optimal transport between normal distributions",
    "self_train": "a head fitted to its own guesses too",
    "label_shift": "another mix of classes, by EM",
}


@dataclass(frozen=True)
class Elsewhere:
    """What was tried on the images without labels, and both heads' accuracies."""

    adapted: AdaptRecord
    found: ElsewhereRecord
    template: str = "elsewhere"

    @classmethod
    def of(cls, run: Artefacts) -> Elsewhere | None:
        """Return the section of a run; None where nothing was tried and no such image has a label."""
        adapted, found = adapt_folder.read(run.layout.adapt), elsewhere.read(run.layout.evaluation)
        return cls(adapted, found) if adapted.trial or found.labelled else None

    @property
    def words(self) -> Mapping[str, str]:
        """Each way to adapt, for people."""
        return _WORDS

    def figures(self) -> Mapping[str, str]:
        """Return the accuracies of both heads on both kinds of images."""
        rows: list[tuple[str, float, Interval | None]] = []
        for name, scores in self.found.held_out.items():
            interval = Interval(scores.accuracy_low, scores.accuracy_high)
            rows.append((f"held-out images, {name} head", scores.accuracy, interval))
        labelled = self.found.labelled
        for name, share in (("plain", labelled.plain), ("adapted", labelled.adapted)) if labelled else ():
            if share:
                rows.append((f"images from elsewhere, {name} head", share.value, Interval(share.low, share.high)))
        return {"accuracies": figures.comparison(rows)}
