"""A look at a batch of images: counted in the ledger, and compared with the held-out images as a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from headstart.monitoring import batch, scores
from headstart.monitoring.batch import Accuracy, Share, TwoSample
from headstart.monitoring.ledger import Ledger, Look
from headstart.monitoring.reference import Reference

FALSE_ALARM = 0.01  # the chance of ever raising an alarm without a change
_FEW = 20  # held-out images, with fewer of which changes are found late
_COLUMNS = 16


@dataclass(frozen=True)
class Batch:
    """The model's outputs for images, and what tells these apart."""

    outputs: Mapping[str, np.ndarray]  # `probabilities` float [N, C], `novelty` float [N]
    digests: Sequence[bytes]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.digests)


class Seen(NamedTuple):
    """What a look has found."""

    look: Look
    n_counted: int  # images that are new to the ledger
    confidence: float
    accuracy: Accuracy
    mix: list[Share]  # a class
    two_sample: TwoSample | None


def look(
    ledger: Ledger, known: Reference, images: Batch, abstain_below: float, novel_above: float, time: str, n_counted: int
) -> Seen:
    """Compare a batch whose images were counted, `n_counted` of them for the first time, and note it in the ledger."""
    probabilities, novelty = images.outputs["probabilities"], images.outputs["novelty"]
    highest = probabilities.astype(np.float64).max(1)
    estimated = batch.accuracy(highest, known)
    seed = ledger.seed + len(ledger.looks)
    sample = batch.two_sample(scores.signature(images.outputs, _COLUMNS), known.rows, seed)
    noted = Look(
        time=time,
        n_images=len(images),
        evidence=round(ledger.evidence, 4),
        confidence=round(float(highest.mean()), 6),
        accuracy=round(estimated.accuracy, 6),
        abstaining=round(float((highest < abstain_below).mean()), 6),
        novel=round(float((novelty > novel_above).mean()), 6),
        p_value=sample and round(sample.p_value, 6),
    )
    ledger.note(noted)
    mix = batch.class_mix(probabilities, known.shares, seed)
    return Seen(noted, n_counted, float(highest.mean()), estimated, mix, sample)


def told(seen: Seen, ledger: Ledger, known: Reference, classes: Sequence[str]) -> dict[str, Any]:
    """Return everything as plain values, for JSON."""
    alarm = ledger.alarm
    return {
        "alarm": alarm and {"score": alarm.score, "image": alarm.image, "n_images": alarm.n_images, "time": alarm.time},
        "false_alarm": ledger.false_alarm,
        "n_images": seen.look.n_images,
        "n_counted": seen.n_counted,
        "n_images_in_all": ledger.n_images,
        "n_held_out": known.n_images,
        "limit": ledger.limit,
        "capital": {
            name: {"now": _power(made.log_capital), "highest": _power(made.log_highest)}
            for name, made in ledger.bets.items()
        },
        "p_value": seen.look.p_value,
        "mmd2": seen.two_sample and round(seen.two_sample.mmd2, 6),
        "confidence": {"now": seen.look.confidence, "held_out": round(known.confidence, 6)},
        "abstaining": {"now": seen.look.abstaining, "held_out": round(known.abstaining, 6)},
        "novel": {"now": seen.look.novel, "held_out": round(known.novel, 6)},
        "accuracy": {
            **{name: round(value, 6) for name, value in seen.accuracy._asdict().items()},
            "held_out": round(known.accuracy, 6),
            "is_estimated": True,
        },
        "classes": {
            name: {
                **{each: round(value, 6) for each, value in share._asdict().items()},
                "held_out": round(float(before), 6),
            }
            for name, share, before in zip(classes, seen.mix, known.shares, strict=True)
        },
        "warnings": warnings(known),
    }


def warnings(known: Reference) -> list[str]:
    """Return what a reader of the figures has to know."""
    if known.n_images >= _FEW:
        return []
    return [f"only {known.n_images} held-out images to compare with: a change is found late"]


def _power(log_value: float) -> float:
    return round(math.exp(min(log_value, 700.0)), 6)
