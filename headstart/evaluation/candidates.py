"""Decides which candidate ships, the frozen or the tuned backbone, and finds the pieces of a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.base import paired
from headstart.evaluation import metrics
from headstart.evaluation.folder import Candidate, Contest, McNemarRecord, Scores, ValidationFigures
from headstart.onnx import adapt_folder, backbone_folder, finetune_folder, head_folder, pieces

if TYPE_CHECKING:
    import polars as pl

    from headstart.layout import Layout

CANDIDATES: tuple[Candidate, Candidate] = ("frozen", "tuned")  # that validation decides between


def learned_from(candidate: Candidate) -> tuple[str, ...]:
    """Return the splits whose labels a candidate has learned from; fine-tuning keeps val to decide by."""
    from headstart.base.dataset import TRAIN, VAL  # it needs polars, which a stage that is off does without

    return (TRAIN,) if candidate == "tuned" else (TRAIN, VAL)


class Pieces(NamedTuple):
    """The ONNX files of a model, to run one after another or to join."""

    resize: Path
    backbone: Path
    head: Path
    levels: tuple[int, ...] | None  # the numbers of those that the head reads; None: all that the backbone gives

    def network(self) -> bytes:
        """Return the backbone, without what the head does not read."""
        if self.levels is None:
            return self.backbone.read_bytes()
        import onnx

        return pieces.to_bytes(pieces.narrowed(onnx.load(self.backbone), self.levels))


def pieces_of(layout: Layout, candidate: Candidate) -> Pieces:
    """Return the pieces of a candidate, checked against the digests in their records."""
    resize = backbone_folder.piece(layout.backbone, backbone_folder.RESIZE)
    if candidate != "tuned":
        backbone = backbone_folder.piece(layout.backbone, backbone_folder.BACKBONE)
        known, read = backbone_folder.read(layout.backbone).levels, head_folder.read(layout.head).levels
        numbers = tuple(number for number, level in enumerate(known) if level.name in read)
        head = adapt_folder.piece(layout.adapt) if candidate == "adapted" else head_folder.piece(layout.head)
        return Pieces(resize, backbone, head, None if len(numbers) == len(known) else numbers)
    backbone, head = (
        finetune_folder.piece(layout.finetune, name) for name in (finetune_folder.BACKBONE, finetune_folder.HEAD)
    )
    return Pieces(resize, backbone, head, levels=None)


class Decision(NamedTuple):
    """The choice between the two candidates, by validation."""

    chosen: Candidate
    why: str
    figures: ValidationFigures


def decide(validation: pl.DataFrame, groups: np.ndarray, n_epochs: int) -> Decision:
    """Decide by `tables.VALIDATION` and the group of each of its rows.

    The frozen candidate is the default: it is simpler and was trained on more images. The tuned one ships only if it is
    significantly better, with a correction for the best of `n_epochs`, which was picked on the same images.
    """
    frozen, tuned = (validation[f"{name}_log_loss"].to_numpy() for name in CANDIDATES)
    lead = paired.advantage(frozen, tuned, groups)
    pays = lead.is_clear(n_epochs)
    margin = f"{abs(lead.mean):.4f} nats per image, standard error {lead.standard_error:.4f}"
    if pays:
        why = f"Fine-tuning ships: its log loss on validation is significantly lower, by {margin}."
    elif lead.mean > 0:
        chance = f"not significantly for the best of {n_epochs} epochs"
        why = f"Fine-tuning does not ship: its log loss on validation is lower, but {chance} ({margin})."
    else:
        why = f"Fine-tuning does not ship: its log loss on validation is not lower ({margin})."
    right = [float(validation[f"{name}_correct"].to_numpy().mean()) for name in CANDIDATES]
    figures = ValidationFigures(
        n_images=len(validation),
        frozen_log_loss=round(float(frozen.mean()), 6),
        frozen_accuracy=round(right[0], 6),
        tuned_log_loss=round(float(tuned.mean()), 6),
        tuned_accuracy=round(right[1], 6),
        advantage=round(lead.mean, 6),
        standard_error=round(min(lead.standard_error, 1e9), 6),
    )
    return Decision("tuned" if pays else "frozen", why, figures)


def contest(
    decision: Decision, scores: dict[Candidate, Scores], right: dict[Candidate, np.ndarray], best_epoch: int
) -> Contest:
    """Return the record of a decision, with both candidates' scores and right answers, bool [N], on the test images."""
    only_frozen, only_tuned, p_value = metrics.mcnemar(right["frozen"], right["tuned"])
    told = McNemarRecord(only_frozen_right=only_frozen, only_tuned_right=only_tuned, p_value=round(p_value, 6))
    return Contest(why=decision.why, validation=decision.figures, test=scores, mcnemar=told, best_epoch=best_epoch)
