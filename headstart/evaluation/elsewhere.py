"""The adapted head beside the head as it is: on held-out images, and on images of the other domain that have labels.

The labels that a manifest gives to some of `data.unlabelled` are read here alone, and nothing is fitted or chosen by
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.base import unlabelled
from headstart.base.intervals import Z, wilson
from headstart.base.records import Record
from headstart.embedding import features
from headstart.evaluation.folder import Candidate, Scores
from headstart.evaluation.predictions import Answers, answers_of
from headstart.onnx import adapt_folder, head_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.layout import Layout

_RECORD, _STAGE = "elsewhere.json", "evaluate"
_FEWEST = 10  # images with labels: with fewer an interval would be one in name


class ShareRecord(Record):
    """An accuracy with its 95 % interval."""

    value: float
    low: float
    high: float


class LabelledRecord(Record):
    """Accuracies on images of the other domain, by the labels that a manifest gives to some of them."""

    n_images: int  # that have a label
    n_others: int  # that have none, and make the interval narrower where confidences tell of them (PPI++)
    n_other_labels: int  # labels that are no class of the model: left out
    plain: ShareRecord  # the head as it is
    adapted: ShareRecord | None
    gain: ShareRecord | None  # of the adapted head, in accuracy

    @property
    def told(self) -> str:
        """The accuracies in a line."""
        heads = {"the head as it is": self.plain, "the adapted one": self.adapted}
        words = [
            f"{name} {each.value:.1%} right ({each.low:.1%} to {each.high:.1%})" for name, each in heads.items() if each
        ]
        return f"on images from elsewhere, by {self.n_images} labels that were given: {', '.join(words)}"


class ElsewhereRecord(Record):
    """elsewhere.json."""

    method: str  # none: there is no adapted head
    ships: bool
    held_out: dict[str, Scores]  # plain and adapted: on images of the first domain
    labelled: LabelledRecord | None  # None where fewer than 10 images have a label


class Mean(NamedTuple):
    """An estimate and its standard error."""

    value: float
    standard_error: float


def prediction_powered(labelled: np.ndarray, guessed: np.ndarray, others: np.ndarray) -> Mean:
    """Return the mean of values that are known of n images and guessed of these and of N others.

    `labelled` float [n], what is known; `guessed` float [n], guesses of the same; `others` float [N]. PPI++
    (Angelopoulos, Duchi & Zrnic 2023, sections 2 and 6): guesses get the weight, 0..1, with the least variance; of
    useless ones it is about 0, which leaves the plain mean. Guesses may be wrong: they never move the estimate's limit.
    """
    n, n_others = len(labelled), len(others)
    weight = 0.0
    spread = float(np.concatenate([guessed, others]).var())
    if n > 1 and n_others and spread > 0:
        weight = float(np.cov(labelled, guessed)[0, 1]) / ((1 + n / n_others) * spread)
        weight = min(max(weight, 0.0), 1.0)
    rest = labelled - weight * guessed
    variance = float(rest.var(ddof=1)) / n if n > 1 else float("inf")
    value = float(rest.mean())
    if weight:
        value += weight * float(others.mean())
        variance += weight**2 * float(others.var()) / n_others
    return Mean(value, variance**0.5)


def accuracy(right: np.ndarray, confidence: np.ndarray, others: np.ndarray) -> ShareRecord:
    """Return the accuracy on a domain: `right` bool [n] and the confidences of these [n] and of other images [N].

    The interval is Wilson's for as many images as give the standard error, at least n, so that it has a width where all
    are right.
    """
    found = prediction_powered(right.astype(np.float64), confidence, others)
    value = min(max(found.value, 0.0), 1.0)
    variance, n_most = found.standard_error**2, len(right) + len(others)
    n_as_good = value * (1 - value) / variance if 0 < value < 1 and variance > 0 else float(len(right))
    low, high = wilson(value, min(max(n_as_good, 1.0), n_most))
    return _share(value, max(low, 0.0), min(high, 1.0))


def of(layout: Layout, classes: Sequence[str], scores: Mapping[Candidate, Scores], *, ships: bool) -> ElsewhereRecord:
    """Return the record; `scores` of each candidate on the held-out images, `ships`: whether the adapted one does."""
    both: tuple[tuple[str, Candidate], ...] = (("plain", "frozen"), ("adapted", "adapted"))
    return ElsewhereRecord(
        method=adapt_folder.read(layout.adapt).chosen,
        ships=ships,
        held_out={name: scores[candidate] for name, candidate in both if candidate in scores},
        labelled=labelled(layout, classes),
    )


def labelled(layout: Layout, classes: Sequence[str]) -> LabelledRecord | None:
    """Return the accuracies of the head as it is and of the adapted one; None where too few images have a label."""
    found = unlabelled.read(layout)
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([-1 if given is None else place.get(given, -2) for given in found.given], np.int64)
    if (labels >= 0).sum() < _FEWEST:
        return None
    rows = features.opened(layout.of_unlabelled()).at(head_folder.read(layout.head).levels).read(found.image_ids)
    plain, adapted = answers_of(head_folder.piece(layout.head), rows), None
    if adapt_folder.read(layout.adapt).is_adapted:
        adapted = answers_of(adapt_folder.piece(layout.adapt), rows)
    return compared(plain, adapted, labels)


def compared(plain: Answers, adapted: Answers | None, labels: np.ndarray) -> LabelledRecord:
    """Return the record of answers on N images, with their labels int [N]: -1 where none, -2 where no class."""
    known, others = labels >= 0, labels == -1
    sure, right = [], []
    for answers in (plain, adapted) if adapted else (plain,):
        sure.append(answers.probabilities.max(1).astype(np.float64))
        right.append(answers.predicted == labels)
    shares = [accuracy(good[known], each[known], each[others]) for good, each in zip(right, sure, strict=True)]
    gain = None
    if adapted:
        more = right[1].astype(np.float64) - right[0]
        expected = np.where(plain.predicted == adapted.predicted, 0.0, sure[1] - sure[0])
        mean = prediction_powered(more[known], expected[known], expected[others])
        half = Z * mean.standard_error
        gain = _share(mean.value, mean.value - half, mean.value + half)
    return LabelledRecord(
        n_images=int(known.sum()),
        n_others=int(others.sum()),
        n_other_labels=int((labels == -2).sum()),
        plain=shares[0],
        adapted=shares[1] if adapted else None,
        gain=gain,
    )


def read(folder: Path) -> ElsewhereRecord:
    """Return the record; CheckError if `evaluate` has not written it."""
    return ElsewhereRecord.read(folder / _RECORD, _STAGE)


def write(folder: Path, record: ElsewhereRecord) -> None:
    """Write elsewhere.json."""
    record.write(folder / _RECORD)


def _share(value: float, low: float, high: float) -> ShareRecord:
    return ShareRecord(value=round(value, 6), low=round(low, 6), high=round(high, 6))
