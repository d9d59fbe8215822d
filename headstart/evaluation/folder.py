"""What artifacts/evaluation holds, and how it is written and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from headstart.base.records import Record, read_each, write_each

if TYPE_CHECKING:
    import polars as pl

Candidate = Literal["frozen", "tuned"]

METRICS = "metrics.json"
CONFUSION, RELIABILITY, RISK_COVERAGE = "confusion.csv", "reliability.csv", "risk_coverage.csv"  # DVC's plots
_PREDICTIONS, _PER_CLASS = "predictions.parquet", "per_class.json"
_CHOICE, _COMPARISON = "candidates.json", "comparison.json"
_STAGE = "evaluate"


class Scores(Record):
    """Scores of the held-out images, 0..1 where nothing else is said; `_low` and `_high` bound 95 % intervals."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float  # mean recall of the classes
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    log_loss: float  # nats an image
    brier: float  # 0..2
    ece: float  # expected calibration error
    aurc: float  # area under the risk-coverage curve
    majority_accuracy: float  # of always naming the most frequent class of the training images
    top5_accuracy: Annotated[float | None, Field(default=None, exclude_if=lambda value: value is None)]
    n_images: int
    n_groups: int
    n_errors: int


class TestScores(Scores):
    """The same of the candidate that ships, and what becomes of its answers where it may abstain."""

    __test__ = False  # no test of pytest's

    wanted_accuracy: float  # of the answers that it does not abstain from
    abstain_below: float  # a probability
    coverage: float  # share of the images that it answers
    selective_accuracy: float | None  # of these answers; None: it answers none
    ece_before: float  # before calibration


class Metrics(Record):
    """metrics.json, a DVC metric."""

    test: TestScores


class ClassRecord(Record):
    """One class of per_class.json; None where a score has no denominator."""

    support: int  # held-out images of the class
    n_predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    precision_low: float | None
    precision_high: float | None
    recall_low: float | None
    recall_high: float | None


class ValidationFigures(Record):
    """Both candidates on the validation images, neither having learned from them."""

    n_images: int
    frozen_log_loss: float
    frozen_accuracy: float
    tuned_log_loss: float
    tuned_accuracy: float
    advantage: float  # of the tuned one: how much lower its log loss is, nats an image
    standard_error: float


class McNemarRecord(Record):
    """Where the two candidates' answers on the held-out images differ."""

    only_frozen_right: int
    only_tuned_right: int
    p_value: float


class Contest(Record):
    """The frozen candidate against the tuned one."""

    why: str
    validation: ValidationFigures  # what decided
    test: dict[Candidate, Scores]  # what came of it
    mcnemar: McNemarRecord
    best_epoch: int


class Choice(Record):
    """candidates.json: which candidate ships."""

    chosen: Candidate
    n_images: int  # that it has learned from
    temperature: float  # of its calibration
    contest: Contest | None  # None where fine-tuning is off


class AcceptedScores(Record):
    """The accepted model on the same images."""

    version: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class Comparison(Record):
    """The new model beside the accepted one."""

    accepted: AcceptedScores
    only_accepted_right: int
    only_new_right: int
    p_value: float  # McNemar's exact test, two-sided
    is_worse: bool  # by more than chance
    why: str


class ComparisonFile(Record):
    """comparison.json."""

    comparison: Comparison | None  # None where export.gate names no accepted model


def write(
    folder: Path,
    predictions: pl.DataFrame,
    scores: TestScores,
    per_class: dict[str, ClassRecord],
    choice: Choice,
    comparison: Comparison | None,
) -> None:
    """Write the predictions and the records; the data of the plots are written by whoever makes them."""
    from headstart.base import tables

    tables.write(folder / _PREDICTIONS, predictions, tables.PREDICTIONS)
    write_each(folder / _PER_CLASS, per_class)
    choice.write(folder / _CHOICE)
    ComparisonFile(comparison=comparison).write(folder / _COMPARISON)
    Metrics(test=scores).write(folder / METRICS)


def scores(folder: Path) -> TestScores:
    """Return the scores of the held-out images; CheckError if `evaluate` has not written them."""
    return Metrics.read(folder / METRICS, _STAGE).test


def choice(folder: Path) -> Choice:
    """Return which candidate ships."""
    return Choice.read(folder / _CHOICE, _STAGE)


def comparison(folder: Path) -> Comparison | None:
    """Return the new model beside the accepted one, None where there is none."""
    return ComparisonFile.read(folder / _COMPARISON, _STAGE).comparison


def per_class(folder: Path) -> dict[str, ClassRecord]:
    """Return the scores of each class."""
    return read_each(folder / _PER_CLASS, ClassRecord, _STAGE)


def predictions(folder: Path) -> pl.DataFrame:
    """Return `tables.PREDICTIONS`."""
    from headstart.base import tables

    return tables.read(folder / _PREDICTIONS, tables.PREDICTIONS, _STAGE)
