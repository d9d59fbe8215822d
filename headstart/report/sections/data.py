"""What was it trained on?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from headstart.base import decisions, validation
from headstart.base.decisions import Decided
from headstart.base.errors import count_and_name, counted
from headstart.embedding.views import Views
from headstart.report import figures
from headstart.report.artefacts import Artefacts
from headstart.report.page import TILE_PX

MAX_SHEETS = 600  # classes whose images are shown
_N_SHEET = 8  # images of a class; with many classes, fewer of each
_NAME_PX = 144  # room for the name of a class
_N_VARIED = 4  # images whose variants are shown
_N_VARIANTS = 7
_MAX_NAMED = 20  # classes; all are in artifacts/validation/summary.json
_NARROW_ENOUGH = 0.7  # share of a typical image that its centre square has: below 3:2 (0.67) and above 4:3 (0.75)
Variants = Callable[[np.ndarray, str], list[np.ndarray]]  # takes an image's pixels and its image_id


@dataclass(frozen=True)
class Data:
    """The numbers of images, some images of each class, how they were varied, and what was set aside."""

    dataset: str
    form: str  # of the data, in words
    classes: Sequence[str]
    images_per_class: Mapping[str, Mapping[str, int]]  # split -> class -> count
    sheets: Mapping[str, Sequence[np.ndarray]]  # training images of each class
    variation: str  # how training images are varied, in words
    varied: Sequence[Sequence[np.ndarray]]  # each: an image and its variants
    notes: Sequence[str]
    warnings: Sequence[str]
    lacking: Mapping[str, Sequence[str]]  # split -> classes that had no image there
    quarantined: Sequence[tuple[str, str]]  # path, reason
    decided: Sequence[Decided] = ()
    n_copies: int = 0  # of used images
    template: str = "data"

    @property
    def told_of_decisions(self) -> str:
        """What was decided, in a sentence."""
        return decisions.told(self.decided)

    @classmethod
    def of(cls, run: Artefacts) -> Data:
        """Return the section of a run."""
        summary = run.split_summary
        n_each = max(1, min(_N_SHEET, MAX_SHEETS // len(run.classes)))
        sheets = {
            name: [each.pixels for each in run.shown(run.train.of_class(label)[:n_each])]
            for label, name in enumerate(run.classes[:MAX_SHEETS])
        }
        variation, variants = _variation(run)
        few = run.train[:_N_VARIED]
        varied = [
            [image.pixels, *variants(image.pixels, image_id)]
            for image_id, image in zip(few.image_ids, run.shown(few), strict=True)
        ]
        return cls(
            PurePath(run.params.data.root).name,
            run.validated.form,
            run.classes,
            summary.images_per_class,
            sheets,
            variation,
            varied if any(len(images) > 1 for images in varied) else [],
            [*summary.notes, *notes_of(run)],
            [*summary.warnings, *warnings_of(run)],
            summary.lacking,
            validation.quarantined(run.layout),
            run.decided,
            run.validated.n_copies,
        )

    @property
    def sheet_px(self) -> int:
        """The width of a class's images, at least that of a name."""
        return max(_NAME_PX, TILE_PX * max(map(len, self.sheets.values()), default=0))

    def figures(self) -> Mapping[str, str]:
        """Return the class balance."""
        return {"class_balance": figures.class_balance(self.images_per_class, self.classes)}


def notes_of(run: Artefacts) -> list[str]:
    """Return what was done to the data, each in a sentence."""
    found, notes = run.validated, [f"The network sees {run.backbone.preprocessing.seen}."]
    if found.bits:
        notes.append(
            f"Values of {found.bits} bits in files with 16 bits a channel: {2**found.bits - 1} is shown white."
        )
    if found.n_copies:
        notes.append(
            f"{found.n_copies} files are copies of other images under the same label; one of each is used, the others"
            " are in artifacts/validation/quarantine.csv."
        )
    if found.dropped_classes:
        each = (f"{label} ({n_images})" for label, n_images in found.dropped_classes.items())
        named = count_and_name(each, _MAX_NAMED)
        notes.append(
            f"{counted(len(found.dropped_classes), 'class', 'classes')} with fewer images than validate.min_images left"
            f" out: {named}."
        )
    return notes


def warnings_of(run: Artefacts) -> list[str]:
    """Return what a reader should beware of, each in one or two sentences."""
    share = run.validated.centre_share
    if run.backbone.preprocessing.fit != "crop" or share > _NARROW_ENOUGH:
        return []
    return [
        f"These images are wide or tall: of a typical one, {1 - share:.0%} lies outside the centre square, and the"
        " network does not see it. If that may hide what matters, set transform.fit to squeeze or pad in params.yaml."
    ]


def _variation(run: Artefacts) -> tuple[str, Variants]:
    """Return, in words, how training images were varied, and a function that draws variants of an image."""
    if run.choice.chosen == "tuned":
        return _augmented(run)
    if not run.params.embed.views:
        return "Not at all: the head was trained on each image without augmentation.", lambda pixels, image_id: []
    facts, settings = run.backbone.preprocessing, run.params.embed
    views = Views(settings.views, settings.seed, facts.input_px, facts.interpolation)
    said = "By random crops of 25% to 100% of the area and random flips:"
    said += f" {views.n_views} views in addition to each image."
    return _with_legend(said), lambda pixels, image_id: list(views.of(pixels, image_id)[:_N_VARIANTS])


def _augmented(run: Artefacts) -> tuple[str, Variants]:
    from headstart.tuning.augment import Augmentation  # it needs torch

    settings, facts = run.params.finetune, run.backbone.preprocessing
    drawn = Augmentation.of(settings, facts)
    said = f"By random crops of {100 * settings.crop_area:g}% to 100% of the area"
    said += ", random flips" if settings.flip else ""
    said += f", {settings.policy} augmentation" if settings.policy != "none" else ""
    said += ", random erasing" if settings.erasing else ""
    said += f": {settings.views} views per image, in turn." if settings.views else ": a new view in every epoch."

    def variants(pixels: np.ndarray, image_id: str) -> list[np.ndarray]:
        views = [drawn.view(pixels, image_id, draw).numpy() for draw in range(settings.views or _N_VARIANTS)]
        return [np.ascontiguousarray(view.transpose(1, 2, 0)) for view in views[:_N_VARIANTS]]

    return _with_legend(said), variants


def _with_legend(said: str) -> str:
    return f"{said} The first picture of each row is the original image."
