"""artifacts/head: head.onnx, its record head.json, and the figures that it was chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from headstart.base.files import promised, read_csv
from headstart.base.records import Digest, Record

if TYPE_CHECKING:
    import polars as pl

HEAD, CANDIDATES, LEARNING_CURVE = "head.onnx", "candidates.csv", "learning_curve.csv"
_RECORD, _OUT_OF_FOLD = "head.json", "out_of_fold.parquet"
_STAGE = "train_head"

Outcome = Literal["fitted", "at its bound", "no better than none"]  # of the search for a temperature


class MemberRecord(Record):
    """A head of a kind, and its share in a blend."""

    kind: str  # a name of heads.kinds
    levels: tuple[str, ...]  # of the frozen backbone that it reads, side by side
    strength: float  # 0 for a kind without one; of lda, 0 is the shrinkage of Ledoit and Wolf
    temperature: float  # that its scores are divided by before they are blended
    weight: float  # of all members together 1


class HeadRecipe(Record):
    """What it takes to fit a head again: its members, and what their sum is divided by."""

    members: list[MemberRecord]
    temperature: float

    @property
    def levels(self) -> set[str]:
        """The names of all levels that the members read."""
        return {level for member in self.members for level in member.levels}


class CalibrationRecord(Record):
    """The temperature that was found, and whether it ships. Log losses are in nats an image, by cross-validation."""

    fitted: float
    outcome: Outcome  # it ships where it is `fitted`, else none does
    log_loss_without: float  # of scores as they are
    log_loss_with: float  # with temperatures that were fitted on other images

    @property
    def told(self) -> str:
        """The outcome for people."""
        if self.outcome == "at its bound":
            return (
                f"No temperature ships: the one that was fitted is at the end of its range ({self.fitted:.3g}), so"
                " held-out images do not tell how sure the model should be. Take its probabilities as a ranking."
            )
        change = f"the log loss from {self.log_loss_without:.3f} to {self.log_loss_with:.3f} nats an image"
        if self.outcome == "no better than none":
            return f"No temperature ships: by cross-validation the fitted one ({self.fitted:.3g}) takes {change}."
        return f"Temperature {self.fitted:.3g}, fitted on other images; by cross-validation it takes {change}."


class TrainingRecord(Record):
    """What all heads of the selection were fitted with."""

    class_weights: list[float] | None
    label_smoothing: float
    dropout: float
    seed: int
    shift: list[float]  # added to the calibrated scores, a number a class


class NestedRecord(Record):
    """What the whole selection gives, repeated within every outer fold, on images that it did not look at."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float  # nats an image
    optimism: float  # by how much the winner's own cross-validated accuracy is higher
    n_agreeing: int  # outer folds that chose the same kind and levels


class ForecastRecord(Record):
    """The accuracy that a number of images would bring, with a 95 % interval."""

    n_images: int
    accuracy: float
    low: float
    high: float


class LearningRecord(Record):
    """What the learning curve says of more images."""

    gain: float  # of accuracy, from half of the images to all of them
    gain_low: float  # 95 % interval, by differences on the same images
    gain_high: float
    forecast: list[ForecastRecord]  # by a power law, the last for ten times the images; empty where it cannot be told


class HeadRecord(Record):
    """head.json."""

    kind: str  # a name of heads.kinds, or blend
    words: str  # the same for people
    levels: tuple[str, ...]  # of the frozen backbone that it reads, side by side
    classes: list[str]
    recipe: HeadRecipe
    linear: HeadRecipe | None  # of the best that is one Gemm, which fine-tuning starts from; None if none was tried
    calibration: CalibrationRecord
    select_by: str  # what candidates were compared by, a name of heads.criteria
    training: TrainingRecord
    n_images: int  # learned from: train and val
    n_views: int  # of each, beside the image as it is
    n_folds: int
    n_cross_validated: int  # images; fewer than n_images where there are very many
    cv_accuracy: float  # of the winner of many, so it may be too good
    cv_log_loss: float  # nats an image, calibrated
    learning: LearningRecord
    nested: NestedRecord | None  # None with two folds, or where memory did not hold it
    precision: str  # that the features were computed in
    dtype: str  # that they are kept in
    made_for: Annotated[Digest, Field(description="of all that the head follows from")]
    versions: dict[str, str]  # of the packages that fitted it
    files: dict[str, Digest]  # beside this one

    @property
    def temperature(self) -> float:
        """What the scores are divided by; it is folded into head.onnx."""
        return self.recipe.temperature


def read(folder: Path) -> HeadRecord:
    """Return what head.json says; CheckError if `train_head` has not written it."""
    return HeadRecord.read(folder / _RECORD, _STAGE)


def out_of_fold(folder: Path) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD`."""
    from headstart.base import tables

    return tables.read(folder / _OUT_OF_FOLD, tables.OUT_OF_FOLD, _STAGE)


def candidates(folder: Path) -> list[dict[str, Any]]:
    """Return a `heads.candidates.Candidate` a row."""
    return read_csv(promised(folder, CANDIDATES, read(folder).files, _STAGE), _STAGE).to_dicts()


def learning_curve(folder: Path) -> list[dict[str, float]]:
    """Return a `learning_curve.Point` a row."""
    return read_csv(promised(folder, LEARNING_CURVE, read(folder).files, _STAGE), _STAGE).to_dicts()


def write_out_of_fold(folder: Path, table: pl.DataFrame) -> None:
    """Write out_of_fold.parquet."""
    from headstart.base import tables

    tables.write(folder / _OUT_OF_FOLD, table, tables.OUT_OF_FOLD)


def write(folder: Path, record: HeadRecord) -> None:
    """Write head.json: the last, since it names the digests of the other files."""
    record.write(folder / _RECORD)


def piece(folder: Path) -> Path:
    """Return head.onnx; CheckError unless it has the digest that head.json names."""
    return promised(folder, HEAD, read(folder).files, _STAGE)
