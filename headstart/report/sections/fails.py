"""Where does it fail?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headstart.base.dataset import Images
from headstart.base.progress import bar
from headstart.evaluation import folder, slices
from headstart.evaluation.candidates import pieces_of
from headstart.evaluation.folder import ClassRecord, TestScores
from headstart.evaluation.metrics import confusion_matrix
from headstart.evaluation.slices import Slice
from headstart.onnx import runtime
from headstart.report import feature_space, figures, occlusion, pictures
from headstart.report.artefacts import Artefacts, Shown

MAX_CONFUSION_CLASSES = 40  # with more, only the pairs that are most often confused are listed
_MAX_PAIRS = 300  # of them
_WELL, _BADLY = 0.9, 0.5  # F1
_SHORT = 3  # characters of a class name that needs no more room than a count
MAX_WITH_NEIGHBOURS = 48  # mistakes that are shown large and with similar training images; the others are small
_N_NEIGHBOURS = 3
_MAX_SHOWN = 1000  # images on a map and behind the counts of the confusion matrix, every mistake if there is room
_LARGE_PX, _SMALL_PX, _ALIKE_PX = 384, 96, 112
_SPRITE_PX, _TILES_PX = 1_600_000, (40, 128)  # the area of all held-out images together; the side of one of them
_SPRITE_COLUMNS = 32


class Mistake(NamedTuple):
    """A held-out image with a wrong prediction."""

    image: Shown
    predicted: str
    probability: float  # of `predicted`
    neighbours: Sequence[Shown] = ()  # training images with the most similar features
    heat: np.ndarray | None = None  # float [G, G]: the parts that the answer depends on


class Map(NamedTuple):
    """Held-out images on a plane."""

    name: str
    places: np.ndarray  # float [M, 2]


class Pair(NamedTuple):
    """How often images of one class are predicted as another."""

    label: str
    predicted: str
    n_images: int


@dataclass(frozen=True)
class Fails:
    """The confusion matrix, the classes, the most confident mistakes, all images on a map, and behind the counts."""

    test: TestScores
    classes: Sequence[str]
    confusion: np.ndarray  # int [C, C], rows true
    per_class: Mapping[str, ClassRecord]
    mistakes: Sequence[Mistake]  # most confident first; some or all of test.n_errors
    maps: Sequence[Map]
    held_out: Sequence[tuple[Shown, str]]  # images, in the order of the maps' places, and their predictions
    slices: Sequence[Slice] = ()  # the accuracy of each camera, site or whatever else is told of images
    template: str = "fails"
    large_px: int = _LARGE_PX
    small_px: int = _SMALL_PX
    alike_px: int = _ALIKE_PX
    sprite_columns: int = _SPRITE_COLUMNS
    max_large: int = MAX_WITH_NEIGHBOURS

    @classmethod
    def of(cls, run: Artefacts) -> Fails:
        """Return the section of a run."""
        predicted = run.probabilities.argmax(1)
        rows = _shown(predicted == run.test.labels)
        images = run.shown(run.test[rows])
        return cls(
            run.scores,
            run.classes,
            confusion_matrix(run.test.labels, predicted, len(run.classes)),
            folder.per_class(run.layout.evaluation),
            _mistakes(run, predicted),
            _maps(run, run.test[rows]),
            list(zip(images, [run.classes[label] for label in predicted[rows]], strict=True)),
            slices.read(run.layout.evaluation),
        )

    @property
    def shows_confusion(self) -> bool:
        """Whether there are few enough classes for the whole matrix."""
        return len(self.classes) <= MAX_CONFUSION_CLASSES

    @property
    def has_short_names(self) -> bool:
        """Whether the names above the matrix need not be turned."""
        return all(len(name) <= _SHORT for name in self.classes)

    @property
    def row_sums(self) -> list[int]:
        """The number of images of each class, at least 1."""
        sums: list[int] = self.confusion.sum(1).clip(1).tolist()
        return sums

    @property
    def pairs(self) -> list[Pair]:
        """The pairs of classes that are most often confused."""
        return most_confused(self.confusion, self.classes)

    @property
    def hardest(self) -> list[tuple[str, ClassRecord]]:
        """The classes by F1, the lowest first, those without held-out images last."""
        return sorted(self.per_class.items(), key=lambda item: (item[1].f1 is None, item[1].f1, item[0]))

    @property
    def spread(self) -> str:
        """How many classes do well and badly, in words."""
        known = [scores.f1 for scores in self.per_class.values() if scores.f1 is not None]
        ends = sum(f1 >= _WELL for f1 in known), sum(f1 < _BADLY for f1 in known)
        return f"Of {len(known)} classes, {ends[0]} have an F1 of {_WELL} or more, and {ends[1]} one below {_BADLY}."

    @property
    def n_absent(self) -> int:
        """The number of classes without held-out images."""
        return sum(not scores.support for scores in self.per_class.values())

    @property
    def n_compared(self) -> int:
        """The number of slices that are compared with the others of their kind."""
        return sum(each.p_value is not None for each in self.slices)

    @property
    def n_worse(self) -> int:
        """The number of slices that are worse by more than chance."""
        return sum(each.is_worse for each in self.slices)

    @property
    def tile_px(self) -> int:
        """The side of a held-out image within `sprite`: larger if there are few."""
        low, high = _TILES_PX
        return min(max(math.isqrt(_SPRITE_PX // len(self.held_out)), low), high)

    @property
    def sprite(self) -> str:
        """The held-out images in one picture, as a data URI."""
        return pictures.sprite([shown.pixels for shown, _ in self.held_out], self.tile_px, _SPRITE_COLUMNS)

    @property
    def told(self) -> str:
        """Path, label and prediction of each held-out image, as JSON."""
        return json.dumps([[shown.path, shown.label, called] for shown, called in self.held_out], ensure_ascii=False)

    def figures(self) -> Mapping[str, str]:
        """Return the maps."""
        labels = np.array([self.classes.index(shown.label) for shown, _ in self.held_out])
        right = np.array([shown.label == called for shown, called in self.held_out])
        return {
            each.name: figures.feature_map(f"map-{each.name}", each.places, labels, right, self.classes)
            for each in self.maps
        }


def most_confused(confusion: np.ndarray, classes: Sequence[str]) -> list[Pair]:
    """Return the pairs of classes that are confused, most often first, up to `_MAX_PAIRS`."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_PAIRS]
    pairs = [Pair(classes[i // len(classes)], classes[i % len(classes)], int(wrong.flat[i])) for i in order]
    return [pair for pair in pairs if pair.n_images]


def _mistakes(run: Artefacts, predicted: np.ndarray) -> list[Mistake]:
    """Return the most confident mistakes, the first of them with the training images that are most similar."""
    wrong = np.flatnonzero(predicted != run.test.labels)
    order = np.argsort(-run.probabilities.max(1)[wrong], kind="stable")  # images are sorted by image_id
    surest = wrong[order][: run.params.report.gallery_images]
    if not len(surest):
        return []
    close = run.test[surest[:MAX_WITH_NEIGHBOURS]]
    rows = run.features.rows(run.train.image_ids)
    nearest = feature_space.nearest(run.features.read(close.image_ids), rows, _N_NEIGHBOURS)
    neighbours = [run.shown(run.train[numbers]) for numbers in nearest]
    images = run.shown(run.test[surest])
    heats = _heats(run, images[: len(close)], predicted[surest]) if run.params.report.overlays else []
    return [
        Mistake(
            image,
            run.classes[predicted[number]],
            float(run.probabilities[number].max()),
            neighbours[row] if row < len(neighbours) else (),
            heats[row] if row < len(heats) else None,
        )
        for row, (image, number) in enumerate(zip(images, surest, strict=True))
    ]


def _heats(run: Artefacts, images: Sequence[Shown], labels: np.ndarray) -> list[np.ndarray]:
    """Return, for each image, the parts that the answer depends on, float [G, G]."""
    answer, heats = _answering(run), []
    with bar("overlays", len(images), "image") as advance:
        for image, label in zip(images, labels[: len(images)], strict=True):
            heats.append(occlusion.occlusion(image.pixels, answer, int(label)))
            advance(1)
    return heats


def _answering(run: Artefacts) -> Callable[[np.ndarray], np.ndarray]:
    """Return the model that ships as a function from uint8 [N, S, S, 3] to probabilities [N, C]."""
    pieces = pieces_of(run.layout, run.choice.chosen)
    backbone, head = runtime.session(pieces.network()), runtime.session(pieces.head)

    def answer(images: np.ndarray) -> np.ndarray:
        found = backbone.run(None, {"pixels": images})[0]
        probabilities: np.ndarray = head.run(["probabilities"], {"features": found})[0]
        return probabilities

    return answer


def _shown(right: np.ndarray) -> np.ndarray:
    """Return the indices of the images to show: all if they are few, else mistakes and a sample of the others."""
    if len(right) <= _MAX_SHOWN:
        return np.arange(len(right))
    wrong = np.flatnonzero(~right)[: _MAX_SHOWN // 2]
    others = np.flatnonzero(right)[: _MAX_SHOWN - len(wrong)]  # a fair sample, as images are sorted by a hash
    return np.concatenate([others, wrong])


def _maps(run: Artefacts, images: Images) -> list[Map]:
    if len(images) < 3:
        return []
    found = run.features.read(images.image_ids)
    maps = [Map("pca", feature_space.pca(found))]
    if run.params.report.umap:
        maps.append(Map("umap", feature_space.umap(found, run.params.report.seed)))
    return maps
