"""How was it chosen?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.evaluation.folder import Candidate, Contest
from headstart.onnx import finetune_folder, head_folder
from headstart.onnx.backbone_folder import LAST
from headstart.onnx.head_folder import HeadRecord, LearningRecord
from headstart.report import figures
from headstart.report.artefacts import Artefacts

_LITTLE = 0.5  # points of accuracy, hardly worth the labels
MAX_SHOWN = 12  # heads in the table; the others are behind a click
SHORT = {
    "softmax": "logistic regression",
    "svm": "support vector machine",
    "ridge": "ridge regression",
    "lda": "linear discriminant analysis",
    "prototype": "nearest class mean",
    "mlp": "one hidden layer",
    "knn": "nearest neighbours",
    "blend": "weighted mean of heads",
}


@dataclass(frozen=True)
class Chosen:
    """Frozen or fine-tuned, the head's cross-validation, and whether more images would help."""

    chosen: Candidate
    contest: Contest | None  # None if fine-tuning is off
    history: Sequence[Mapping[str, Any]]  # one entry per epoch of fine-tuning
    head: HeadRecord
    known: Sequence[str]  # the backbone's levels, the one nearest to the input first
    candidates: Sequence[Mapping[str, Any]]  # heads.candidates.Candidate
    learning: Sequence[Mapping[str, Any]]  # learning_curve.Point
    is_ranked: bool = False  # whether the backbone was chosen among several on the same images
    template: str = "chosen"

    @classmethod
    def of(cls, run: Artefacts) -> Chosen:
        """Return the section of a run."""
        contest = run.choice.contest
        return cls(
            run.choice.chosen,
            contest,
            finetune_folder.history(run.layout.finetune) if contest else [],
            run.head,
            [level.name for level in run.backbone.levels],
            head_folder.candidates(run.layout.head),
            head_folder.learning_curve(run.layout.head),
            run.params.backbone.is_ranked,
        )

    @property
    def best(self) -> Sequence[Mapping[str, Any]]:
        """The best candidate of each kind and levels, the lowest log loss first."""
        return sorted((each for each in self.candidates if each["is_best"]), key=lambda each: each["cv_log_loss"])

    @property
    def shown(self) -> Sequence[Mapping[str, Any]]:
        """The first of `best`, the chosen one among them."""
        first = self.best[:MAX_SHOWN]
        if any(each["chosen"] for each in first):
            return first
        return [*first[:-1], next(each for each in self.best if each["chosen"])]

    @property
    def winner(self) -> Mapping[str, Any]:
        """The candidate that was chosen."""
        return next(each for each in self.candidates if each["chosen"])

    @property
    def short(self) -> Mapping[str, str]:
        """Each kind in two or three words."""
        return SHORT

    @property
    def legend(self) -> str:
        """What filled and hollow marks of the figure stand for, in words."""
        if self.head.nested is None:
            return "By cross-validation of the best strength."
        if all(each["nested_accuracy"] is not None for each in self.best):
            return "The strength was chosen anew within every fold."
        return (
            "Filled: the strength was chosen anew within every fold. Hollow: not tried in every fold, so it is the"
            " accuracy of the best strength."
        )

    @property
    def honesty(self) -> str:
        """What the winner's own figure is worth, in words."""
        told = honesty(self.head, len(self.candidates))
        if self.is_ranked:
            told += (
                " The backbone was chosen on these images too, which no figure here makes up for: only that on the"
                " held-out images is free of both choices."
            )
        return told

    @property
    def reads(self) -> str:
        """Which levels the head reads and what that saves, in words."""
        return reads(self.known, self.head.levels, ships=self.chosen != "tuned")

    @property
    def start(self) -> str:
        """Which head fine-tuning started from, in words."""
        if self.head.linear is None or self.head.linear == self.head.recipe:
            return "Fine-tuning started from the chosen head."
        kinds = " and ".join(dict.fromkeys(member.kind for member in self.head.linear.members))
        return f"The chosen head is no single matrix product, so fine-tuning started from the best that is: {kinds}."

    @property
    def adjusted(self) -> bool:
        """Whether rare classes are favoured in what is answered."""
        return len(set(self.head.training.shift)) > 1

    @property
    def lesson(self) -> str:
        """What the learning curve shows, in words."""
        return lesson(self.learning, self.head.learning)

    def figures(self) -> Mapping[str, str]:
        """Return the heads that were tried, the learning curve and, with fine-tuning, its losses."""
        drawn = {"learning_curve": figures.learning_curve(self.learning, self.head.learning.forecast)}
        if len(self.best) > 1:
            drawn["heads"] = figures.heads(self.best)
        if self.contest:
            drawn["history"] = figures.history(self.history, self.contest.best_epoch)
        return drawn


def honesty(head: HeadRecord, n_tried: int) -> str:
    """Return, in words, the cross-validated accuracy of the chosen head, and by how much the choice flatters it."""
    if n_tried == 1:
        return f"The head gets {head.cv_accuracy:.1%} of these images right."
    own = (
        f"The chosen head gets {head.cv_accuracy:.1%} of these images right. This may be a little too good, because"
        " it was picked for its results on them."
    )
    if head.nested is None and head.n_folds == 2:
        return f"{own} By how much is not known, since two folds leave none to repeat the choice in."
    if head.nested is None:
        return (
            f"{own} By how much is not known, since the choice repeated within every fold takes more memory than"
            " train_head.memory_mb."
        )
    nested, flattered = head.nested, round(100 * head.nested.optimism, 1)
    return (
        f"{own} Nested cross-validation shows by how much: for each fold, the whole choice is made anew without its"
        f" images, and the head so chosen answers them. {nested.accuracy:.1%} are right (95% interval"
        f" {nested.accuracy_low:.1%} to {nested.accuracy_high:.1%}):"
        f" {f'the choice flattered by {flattered:.1f} points' if flattered > 0 else 'the choice did not flatter'}."
        f" {nested.n_agreeing} of the {head.n_folds} choices gave the same kind and levels."
    )


def reads(known: Sequence[str], levels: Sequence[str], *, ships: bool) -> str:
    """Return, in words, which of the `known` levels a head reads and what that leaves out of a model with it."""
    if len(known) == 1:
        return "The backbone gives its last features alone, those that its own classifier would read."
    given = (
        f"The backbone gives features of {len(known)} levels, from near the input up to '{LAST}', which its own"
        " classifier would read."
    )
    if len(levels) == len(known):
        return f"{given} The head reads all of them."
    if list(levels) == [LAST]:
        return f"{given} The head reads '{LAST}' alone."
    told = f"{given} The head reads {len(levels)} of them: {', '.join(levels)}."
    if LAST in levels or not ships:
        return told
    return f"{told} It does without '{LAST}', so the layers above {levels[-1]} are left out of model.onnx."


def lesson(points: Sequence[Mapping[str, Any]], learning: LearningRecord) -> str:
    """Return, in words, what the learning curve says of more images, and what ten times as many would bring."""
    half, whole = points[-2:]
    if half["n_images"] == whole["n_images"]:
        return (
            "Whether more labelled images would help is not known: classes have so few that none can be left out to"
            " see what they bring."
        )
    gain, low, high = (100 * each for each in (learning.gain, learning.gain_low, learning.gain_high))
    told = (
        f"From {half['n_images']:,} to {whole['n_images']:,} images, accuracy changed by {gain:+.1f} points (95%"
        f" interval {low:+.1f} to {high:+.1f}, by differences on the same images):"
    )
    if low > 0:
        told += " more labelled images are likely to help."
    elif high < _LITTLE:
        told += " more labelled images are unlikely to help; cleaner labels or another backbone may."
    else:
        told += " chance may explain that, so the folds alone do not tell whether more labelled images would help."
    if not learning.forecast:
        return f"{told} No curve can be drawn through so few mistakes or images."
    most = learning.forecast[-1]
    return (
        f"{told} If the curve goes on as a power law, ten times the images ({most.n_images:,}) would bring about"
        f" {most.accuracy:.1%} (95% interval {most.low:.1%} to {most.high:.1%}) in place of {whole['accuracy']:.1%}."
    )
