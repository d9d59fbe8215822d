"""The page: what it says, and the template that says it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.evaluation.metrics import Bin, ClassScores, Interval, RiskCoverage
from headstart.report import figures, pictures

if TYPE_CHECKING:
    from headstart.heads.learning_curve import Point

MAX_CONFUSION_CLASSES = 40  # above it, only the pairs that are most often confused are listed
MAX_SHEETS = 40  # classes of which images are shown
MAX_ROWS = 20
MAX_WITH_NEIGHBOURS = 48  # mistakes that are shown large and beside what they resemble; further ones are small
_LARGE_PX, _SMALL_PX, _TILE_PX, _DOT_PX = 224, 96, 64, 40
_SPRITE_COLUMNS = 32


class Shown(NamedTuple):
    """An image."""

    path: str
    label: str
    pixels: np.ndarray  # uint8 [S, S, 3]


class Mistake(NamedTuple):
    """A held-out image that was called something else."""

    image: Shown
    predicted: str
    probability: float  # of `predicted`
    neighbours: Sequence[Shown] = ()  # training images with the most similar features
    heat: np.ndarray | None = None  # float [G, G]: what the answer rests on


class Map(NamedTuple):
    """Held-out images on a plane."""

    name: str
    places: np.ndarray  # float [M, 2]


class Comparison(NamedTuple):
    """This model and the accepted one on the same images."""

    version: str
    accuracy: float  # the accepted one's
    interval: Interval
    only_accepted_right: int
    only_new_right: int
    p_value: float
    verdict: str


@dataclass(frozen=True)
class Report:
    """All that the page says."""

    dataset: str
    form: str  # in which the data were found
    test: Mapping[str, float]  # metrics.json
    classes: Sequence[str]
    confusion: np.ndarray  # int [C, C], rows true
    per_class: Sequence[ClassScores]
    comparison: Comparison | None  # None: no model has been accepted
    mistakes: Sequence[Mistake]  # most confident first; some or all of test["n_errors"]
    calibrated: Sequence[Bin]
    uncalibrated: Sequence[Bin]
    curve: RiskCoverage
    maps: Sequence[Map]
    mapped: Sequence[tuple[Shown, str]]  # the images of the maps, in their order, and what each is called
    images_per_class: Mapping[str, Mapping[str, int]]  # of each split
    sheets: Mapping[str, Sequence[np.ndarray]]  # training images of each class
    augmentation: str  # how training images are varied, in words
    augmented: Sequence[Sequence[np.ndarray]]  # an image, and variants of it
    notes: Sequence[str]
    warnings: Sequence[str]
    quarantined: Sequence[tuple[str, str]]  # path, reason
    candidates: Sequence[Mapping[str, Any]]  # heads.Candidate
    learning: Sequence[Point]
    head: Mapping[str, Any]  # head.json
    choice: Mapping[str, Any]  # candidates.json: between the frozen backbone and the fine-tuned one
    history: Sequence[Mapping[str, Any]]  # an entry an epoch of fine-tuning
    backbone: Mapping[str, Any]  # backbone.json
    int8: Mapping[str, Any]  # int8.json
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
    environment.filters["percent"] = lambda value: "–" if value is None else f"{value:.1%}"
    environment.filters["score"] = lambda value: "–" if value is None else f"{value:.3f}"
    environment.filters["megabytes"] = lambda value: f"{value / 1e6:.1f} MB"
    environment.globals |= {"picture": pictures.picture, "strip": pictures.strip, "overlaid": pictures.overlaid}
    return environment.get_template("page.html").render(
        report=report,
        figures=_figures(report),
        show_confusion=len(report.classes) <= MAX_CONFUSION_CLASSES,
        row_sums=report.confusion.sum(1).clip(1).tolist(),
        confusion=report.confusion.tolist(),
        pairs=most_confused(report.confusion, report.classes),
        hardest=sorted(
            zip(report.classes, report.per_class, strict=True),
            key=lambda item: (item[1].f1 is None, item[1].f1, item[0]),
        ),
        n_absent=sum(not scores.support for scores in report.per_class),
        max_rows=MAX_ROWS,
        max_large=MAX_WITH_NEIGHBOURS,
        large_px=_LARGE_PX,
        small_px=_SMALL_PX,
        tile_px=_TILE_PX,
        dot_px=_DOT_PX,
        sprite_columns=_SPRITE_COLUMNS,
        sprite=pictures.sprite([shown.pixels for shown, _ in report.mapped], _DOT_PX, _SPRITE_COLUMNS)
        if report.mapped
        else "",
        points=_in_script([[shown.path, shown.label, called] for shown, called in report.mapped]),
        lesson=lesson(report.learning),
    )


def most_confused(confusion: np.ndarray, classes: Sequence[str]) -> list[Pair]:
    """Return the pairs of classes that are confused, most often first, up to `MAX_ROWS`."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_ROWS]
    pairs = [Pair(classes[i // len(classes)], classes[i % len(classes)], int(wrong.flat[i])) for i in order]
    return [pair for pair in pairs if pair.n_images]


def lesson(points: Sequence[Point]) -> str:
    """Return in words what the end of the learning curve says of more images."""
    half, whole = points[-2:]
    gain = 100 * (whole.accuracy - half.accuracy)
    spread = 100 * max(half.accuracy_std, whole.accuracy_std)
    told = f"From {half.n_images:,} to {whole.n_images:,} images accuracy changed by {gain:+.1f} points"
    if gain > spread:
        return f"{told}, more than the folds differ by ({spread:.1f}): more labels are likely to help."
    if gain > 0:
        return f"{told}, no more than the folds differ by ({spread:.1f}): more labels like these may help a little."
    return f"{told}: more labels like these are unlikely to help; cleaner ones, or another backbone, may."


def _figures(report: Report) -> dict[str, Markup]:
    test = report.test
    rows: list[tuple[str, float, Interval | None]] = [
        ("this model", test["accuracy"], Interval(test["accuracy_low"], test["accuracy_high"]))
    ]
    if report.comparison:
        other = report.comparison
        rows.append((f"accepted, {other.version}", other.accuracy, other.interval))
    rows.append(("always the most frequent class", test["majority_accuracy"], None))
    drawn = {
        "comparison": figures.comparison(rows),
        "reliability": figures.reliability(report.uncalibrated, report.calibrated),
        "risk_coverage": figures.risk_coverage(report.curve, test["coverage"], test["selective_accuracy"]),
        "class_balance": figures.class_balance(report.images_per_class, report.classes),
        "learning_curve": figures.learning_curve(report.learning),
    }
    if report.history:
        drawn["history"] = figures.history(report.history, report.choice["best_epoch"])
    labels = np.array([report.classes.index(shown.label) for shown, _ in report.mapped])
    right = np.array([shown.label == called for shown, called in report.mapped])
    for each in report.maps:
        drawn[each.name] = figures.feature_map(f"map-{each.name}", each.places, labels, right, report.classes)
    return {name: Markup(svg) for name, svg in drawn.items()}


def _in_script(value: object) -> Markup:
    """Return JSON that cannot end the script that it stands in."""
    return Markup(json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace('\\"', "\\u0022"))
