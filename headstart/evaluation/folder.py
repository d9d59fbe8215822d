"""The contents of artifacts/evaluation, and how they are written and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from headstart.base import label_sets as label_sets_of
from headstart.base.records import Record, read_each, write_each
from headstart.evaluation.imbalance import UNEVEN
from headstart.onnx.head_folder import CalibrationRecord

if TYPE_CHECKING:
    import polars as pl

Candidate = Literal["frozen", "tuned", "adapted"]  # adapted: frozen, with the head of the stage `adapt`

METRICS = "metrics.json"
CONFUSION, RELIABILITY, RISK_COVERAGE = "confusion.csv", "reliability.csv", "risk_coverage.csv"  # DVC's plots
_PREDICTIONS, _PER_CLASS = "predictions.parquet", "per_class.json"
_CHOICE, _COMPARISON, _LABEL_SETS = "candidates.json", "comparison.json", "label_sets.json"
_STAGE = "evaluate"


_Newer = Annotated[float | None, Field(default=None, exclude_if=lambda value: value is None)]  # older records lack it


class Headline(NamedTuple):
    """The score that stands first."""

    name: Literal["accuracy", "balanced accuracy"]
    value: float
    low: float
    high: float

    def told(self, n_images: int, value: str | None = None) -> str:
        """Return it in words, with `value` in place of its number."""
        number, interval = value or f"{self.value:.2%}", f"(95% interval {self.low:.2%} to {self.high:.2%})"
        if self.name == "accuracy":
            return f"{number} of {n_images} held-out images right {interval}"
        return f"{number} {self.name} {interval} on {n_images} held-out images"


class Scores(Record):
    """Scores on the held-out images, 0..1 unless stated otherwise; `_low` and `_high` bound 95 % intervals."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float  # mean recall of the classes
    balanced_accuracy_low: _Newer
    balanced_accuracy_high: _Newer
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    log_loss: float  # nats per image
    brier: float  # 0..2
    ece: float  # expected calibration error
    aurc: float  # area under the risk-coverage curve
    majority_accuracy: float  # of always predicting the most frequent class of the training images
    top5_accuracy: _Newer  # or None for up to five classes
    n_images: int
    n_groups: int
    n_errors: int


class TestScores(Scores):
    """The scores of the candidate that ships, and of its answers if it may abstain."""

    __test__ = False  # it is not a pytest class

    wanted_accuracy: float  # of the images that it answers
    abstain_below: float  # a probability
    coverage: float  # share of images that it answers
    selective_accuracy: float | None  # of these answers; None if there are none
    ece_before: float  # before calibration
    class_ratio: _Newer  # images of the largest class for each of the smallest, in train and val
    set_coverage: _Newer  # share of label sets that hold the true label
    set_coverage_low: _Newer
    set_coverage_high: _Newer
    mean_set_size: _Newer  # labels

    @property
    def headline(self) -> Headline:
        """Balanced accuracy where classes differ much in size, else accuracy."""
        low, high = self.balanced_accuracy_low, self.balanced_accuracy_high
        if (self.class_ratio or 1) < UNEVEN or low is None or high is None:
            return Headline("accuracy", self.accuracy, self.accuracy_low, self.accuracy_high)
        return Headline("balanced accuracy", self.balanced_accuracy, low, high)


class Metrics(Record):
    """metrics.json, a DVC metric."""

    test: TestScores


class ClassRecord(Record):
    """One class of per_class.json; a score without a denominator is None."""

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
    """Both candidates on the validation images, which neither was trained on."""

    n_images: int
    frozen_log_loss: float
    frozen_accuracy: float
    tuned_log_loss: float
    tuned_accuracy: float
    advantage: float  # how much lower the tuned log loss is, in nats per image
    standard_error: float


class McNemarRecord(Record):
    """How the two candidates' answers on the held-out images differ."""

    only_frozen_right: int
    only_tuned_right: int
    p_value: float


class Contest(Record):
    """The frozen candidate against the tuned one."""

    why: str
    validation: ValidationFigures  # the basis of the decision
    test: dict[Candidate, Scores]  # without influence on the decision
    mcnemar: McNemarRecord
    best_epoch: int


class Choice(Record):
    """candidates.json: which candidate ships."""

    chosen: Candidate
    n_images: int  # that it was trained on
    temperature: float  # of its calibration; 1 where none ships
    calibration: CalibrationRecord
    contest: Contest | None  # None if fine-tuning is off


class LabelSets(Record):
    """What decides which labels are in an image's set: those whose mass above is at most their quantile.

    The mass above a label is the sum of the probabilities above its own, so the most probable label is in every set.
    """

    coverage: Annotated[float, Field(gt=0, lt=1, description="The share of sets that should hold the true label.")]
    quantiles: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        Field(
            min_length=1, description="One for each class, in their order, or a single one for all. 1: in every set."
        ),
    ]
    n_images: Annotated[int, Field(description="Images that they were set by; the model had not learned from them.")]
    n_groups: Annotated[int, Field(description="Groups of these; as many as images where the data give no groups.")]

    @property
    def is_per_class(self) -> bool:
        """Whether the sets of each class hold the true label as often as asked, not only those of all together."""
        return len(self.quantiles) > 1

    @property
    def holds_all(self) -> bool:
        """Whether every set holds every label, as there were too few images, or none of them easy enough."""
        return min(self.quantiles) >= 1

    @property
    def promise(self) -> str:
        """What the sets promise, and when not, for people."""
        each = ", in each class" if self.is_per_class else ""
        return (
            f"Of new images like those in training, about {100 * self.coverage:g}% or more get a set that holds the"
            f" true label{each}; for images from elsewhere, as of another camera or of none of the classes, nothing is"
            " promised."
        )

    @property
    def basis(self) -> str:
        """What the quantiles rest on, for people."""
        grouped = f" in {self.n_groups:,} groups" if self.n_groups != self.n_images else ""
        images = f"{self.n_images:,} images{grouped} that the model had not learned from"
        least, wanted = label_sets_of.least_number(self.coverage), f"a coverage of {self.coverage:g}"
        if self.n_groups < least:
            return (
                f"Every set holds every label: {wanted} takes at least {least:,} images that the model had not learned"
                f" from, one a group, and there are {self.n_groups:,}. More images or a lower evaluate.coverage"
                " would give sets that say something."
            )
        alone = (
            " The most probable label alone is right as often as asked, so every set is that label; a higher"
            " evaluate.coverage gives sets of several."
        )
        alone = alone if max(self.quantiles) == 0 else ""
        if self.is_per_class:
            return f"Each class has its own limit, by {images}.{alone}"
        enough = label_sets_of.enough_for_a_class(self.coverage)
        return (
            f"All classes share one limit, by {images}, so some classes may be held more often than others: a limit for"
            f" each takes {enough:,} such images of every class, one a group.{alone}"
        )


class AcceptedScores(Record):
    """The accepted model on the same images."""

    version: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class Comparison(Record):
    """The new model compared with the accepted one."""

    accepted: AcceptedScores
    only_accepted_right: int
    only_new_right: int
    p_value: float  # McNemar's exact test, two-sided
    is_worse: bool  # significantly
    why: str


class NotComparable(Record):
    """Why the new model was not compared with the accepted one: their classes differ."""

    version: str
    why: str


class ComparisonFile(Record):
    """comparison.json."""

    comparison: Comparison | NotComparable | None  # None if there is no accepted model, or export.gate is null


def write(
    folder: Path,
    predictions: pl.DataFrame,
    scores: TestScores,
    per_class: dict[str, ClassRecord],
    choice: Choice,
    comparison: Comparison | NotComparable | None,
    sets: LabelSets,
) -> None:
    """Write the predictions and the records; the caller writes the data of the plots."""
    from headstart.base import tables

    tables.write(folder / _PREDICTIONS, predictions, tables.PREDICTIONS)
    write_each(folder / _PER_CLASS, per_class)
    choice.write(folder / _CHOICE)
    sets.write(folder / _LABEL_SETS)
    ComparisonFile(comparison=comparison).write(folder / _COMPARISON)
    Metrics(test=scores).write(folder / METRICS)


def scores(folder: Path) -> TestScores:
    """Return the scores on the held-out images; CheckError if `evaluate` has not written them."""
    return Metrics.read(folder / METRICS, _STAGE).test


def choice(folder: Path) -> Choice:
    """Return which candidate ships."""
    return Choice.read(folder / _CHOICE, _STAGE)


def comparison(folder: Path) -> Comparison | NotComparable | None:
    """Return the comparison with the accepted model, or None if there is none."""
    return ComparisonFile.read(folder / _COMPARISON, _STAGE).comparison


def label_sets(folder: Path) -> LabelSets:
    """Return what decides which labels are in an image's set."""
    return LabelSets.read(folder / _LABEL_SETS, _STAGE)


def per_class(folder: Path) -> dict[str, ClassRecord]:
    """Return the scores of each class."""
    return read_each(folder / _PER_CLASS, ClassRecord, _STAGE)


def predictions(folder: Path) -> pl.DataFrame:
    """Return `tables.PREDICTIONS`."""
    from headstart.base import tables

    return tables.read(folder / _PREDICTIONS, tables.PREDICTIONS, _STAGE)
