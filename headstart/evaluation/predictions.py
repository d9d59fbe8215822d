"""A candidate's answers on images, and the tables made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from headstart.base.dataset import Images
from headstart.base.intervals import Interval
from headstart.evaluation.folder import ClassRecord
from headstart.evaluation.metrics import ClassScores, RiskCoverage
from headstart.onnx import runtime

_MAX_POINTS = 200  # of the risk-coverage curve


class Answers(NamedTuple):
    """A candidate's answers on N images."""

    probabilities: np.ndarray  # float32 [N, C], calibrated
    novelty: np.ndarray  # float32 [N], 0..1

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class, int [N]."""
        best: np.ndarray = self.probabilities.argmax(1)
        return best


def answers_of(head: Path, features: np.ndarray) -> Answers:
    """Return the answers of head.onnx for features [N, D]."""
    found = runtime.session(head).run(["probabilities", "novelty"], {"features": features.astype(np.float32)})
    return Answers(*found)


def predictions_table(images: Images, answers: Answers, classes: Sequence[str]) -> pl.DataFrame:
    """Return `tables.PREDICTIONS`."""
    names = pl.Series(classes)
    return pl.DataFrame(
        {
            "image_id": images.image_ids,
            "path": images.paths,
            "label": names[images.labels],
            "predicted": names[answers.predicted],
            "correct": answers.predicted == images.labels,
            "probability": answers.probabilities.max(1),
            "probabilities": pl.Series(answers.probabilities.tolist(), dtype=pl.List(pl.Float32)),
            "novelty": answers.novelty,
        }
    )


def class_records(classes: Sequence[str], scores: Sequence[ClassScores]) -> dict[str, ClassRecord]:
    """Return the scores of each class by its name, rounded to 6 decimals."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 6)

    def record(one: ClassScores) -> ClassRecord:
        precision = one.precision_interval or Interval(None, None)  # type: ignore[arg-type]
        recall = one.recall_interval or Interval(None, None)  # type: ignore[arg-type]
        return ClassRecord(
            support=one.support,
            n_predicted=one.n_predicted,
            precision=rounded(one.precision),
            recall=rounded(one.recall),
            f1=rounded(one.f1),
            precision_low=rounded(precision.low),
            precision_high=rounded(precision.high),
            recall_low=rounded(recall.low),
            recall_high=rounded(recall.high),
        )

    return {name: record(one) for name, one in zip(classes, scores, strict=True)}


def thinned(curve: RiskCoverage) -> pl.DataFrame:
    """Return the curve as a table of at most `_MAX_POINTS` rows: a plot needs no more."""
    rows = np.unique(np.linspace(0, len(curve.risk) - 1, min(_MAX_POINTS, len(curve.risk))).round().astype(int))
    return pl.DataFrame({name: np.round(getattr(curve, name)[rows], 6) for name in curve._fields})
