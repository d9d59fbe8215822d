"""One self-contained HTML page on a finished run: no script that it needs, no other file, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from headstart.metrics import Bin, ClassScores

THUMBNAIL_PX = 128
MAX_CONFUSION_CLASSES = 25  # above it, the pairs that are most often confused are listed instead
MAX_ROWS = 20


class Mistake(NamedTuple):
    """A held-out image that was called something else."""

    path: str
    label: str
    predicted: str
    probability: float  # of `predicted`
    pixels: np.ndarray  # uint8 [S, S, 3]


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    dataset: str
    form: str  # in which the data were found
    test: Mapping[str, float]  # as metrics.evaluate returns it
    classes: Sequence[str]
    confusion: np.ndarray  # int [C, C], rows true
    per_class: Sequence[ClassScores]
    mistakes: Sequence[Mistake]  # most confident first; some or all of test["n_errors"]
    calibrated: Sequence[Bin]
    uncalibrated: Sequence[Bin]
    images_per_class: Mapping[str, Mapping[str, int]]  # of each split
    notes: Sequence[str]
    warnings: Sequence[str]
    quarantined: Sequence[tuple[str, str]]  # path, reason
    candidates: Sequence[Mapping[str, Any]]  # heads.Candidate
    head: Mapping[str, Any]  # head.json
    choice: Mapping[str, Any]  # candidates.json: between the frozen backbone and the fine-tuned one
    history: Sequence[Mapping[str, Any]]  # an entry an epoch of fine-tuning
    backbone: Mapping[str, Any]  # backbone.json
    data_sha256: str


class Pair(NamedTuple):
    """How often images of one class are called another."""

    label: str
    predicted: str
    n_images: int


def render(report: Report) -> str:
    """Return the page; the same report gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{value:.1%}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["thumbnail"] = thumbnail
    return environment.get_template("report.html").render(
        report=report,
        show_confusion=len(report.classes) <= MAX_CONFUSION_CLASSES,
        row_sums=report.confusion.sum(1).clip(1).tolist(),
        confusion=report.confusion.tolist(),
        pairs=most_confused(report.confusion, report.classes),
        hardest=sorted(
            zip(report.classes, report.per_class, strict=True),
            key=lambda item: (item[1].f1 is None, item[1].f1, item[0]),
        ),
        max_rows=MAX_ROWS,
    )


def most_confused(confusion: np.ndarray, classes: Sequence[str]) -> list[Pair]:
    """Return the pairs of classes that are confused, most often first, up to `MAX_ROWS`."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_ROWS]
    pairs = [Pair(classes[i // len(classes)], classes[i % len(classes)], int(wrong.flat[i])) for i in order]
    return [pair for pair in pairs if pair.n_images]


def thumbnail(pixels: np.ndarray) -> str:
    """Return uint8 [S, S, 3] as a data URI of a small JPEG."""
    buffer = io.BytesIO()
    small = Image.fromarray(pixels).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BICUBIC)
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
