"""The images of artifacts/unlabelled whose labels would help most, with the model's guesses: next/next.csv."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart import reviewed
from headstart.auditing import folder as audit
from headstart.base import dataset, unlabelled
from headstart.base.dataset import SPLITS, TRAIN, VAL
from headstart.base.errors import CheckError, DataError
from headstart.base.files import write_text
from headstart.choosing.copies import without_copies
from headstart.choosing.rules import Candidates, Rule, chosen
from headstart.embedding import features, pixels
from headstart.evaluation.predictions import answers_of
from headstart.onnx import backbone_folder, head_folder

if TYPE_CHECKING:
    from headstart.layout import Layout

COLUMNS = ("image_id", "path", "guess", "probability", "second", "label")
LIST = "next.csv"
_MAX_CANDIDATES = 20_000  # a random sample of more
_COPIES = 0.5, [0.95]  # cosine and correlation from which on images are copies, where no audit has measured it


class Proposed(NamedTuple):
    """An image to label."""

    image_id: str
    path: str  # relative to the images without labels
    guess: str
    probability: float  # of the guess, calibrated
    second: str


class Proposal(NamedTuple):
    """The images to label, the most helpful first."""

    images: list[Proposed]
    classes: list[str]
    n_candidates: int  # images without labels that nobody has decided about
    n_copies: int  # candidates that are nearly the same as a labelled image, or as one that ranks higher


def proposed(layout: Layout, rule: Rule, n: int, seed: int, decided: Collection[str] = ()) -> Proposal:
    """Return up to `n` images to label by a rule, none of those that are `decided`, by image_id.

    CheckError or DataError where there are none to choose from.
    """
    images = unlabelled.read(layout)
    if not len(images):
        raise DataError(
            "there are no images without labels, or all are labelled already. A folder or a list of them was expected."
            " Set data.unlabelled, such as `headstart run --set data.unlabelled=photos-2026`."
        )
    some, n_undecided = _candidates(images.image_ids, decided, seed)
    if not some:
        raise DataError(
            f"all {len(images)} images without labels are decided already, in next/decided.csv. Others were expected."
            " Learn from the labels: `headstart run --data labelled.csv`. To be asked again, remove lines there."
        )
    ids = [images.image_ids[row] for row in some]
    known, new = features.opened(layout), features.opened(layout.of_unlabelled())
    if known.plain.contract != new.plain.contract:
        raise CheckError("the features of images without labels are of another backbone. Run `dvc repro unlabelled`.")
    head = head_folder.read(layout.head)
    said = answers_of(head_folder.piece(layout.head), new.at(head.levels).read(ids)).probabilities
    data = dataset.read(layout)
    last = (backbone_folder.LAST,)
    rows, fitted = new.at(last).read(ids), known.at(last).read(data.of(TRAIN, VAL).image_ids)
    guesses = said.argmax(1)

    def distinct(ranked: np.ndarray) -> list[int]:
        return _distinct(layout, [ids[row] for row in ranked], rows[ranked], guesses[ranked])

    found = chosen(rule, Candidates(rows, said), fitted, n, seed, distinct)
    if not found.rows:
        raise DataError(
            f"all {found.n_ranked} images that rank highest of {len(ids)} are nearly the same as labelled ones. Others"
            " were expected: their labels would add little. Give other images to data.unlabelled."
        )
    order_of = np.argsort(-said, axis=1, kind="stable")
    proposals = [
        Proposed(
            ids[row],
            images.paths[some[row]],
            head.classes[order_of[row, 0]],
            round(float(said[row, order_of[row, 0]]), 4),
            head.classes[order_of[row, 1]],
        )
        for row in found.rows
    ]
    return Proposal(proposals, head.classes, n_undecided, found.n_copies)


def _candidates(image_ids: Sequence[str], decided: Collection[str], seed: int) -> tuple[list[int], int]:
    """Return the numbers of the images to choose among, a sample of many, and how many nobody has decided about."""
    undecided = [number for number, image_id in enumerate(image_ids) if image_id not in decided]
    if len(undecided) <= _MAX_CANDIDATES:
        return undecided, len(undecided)
    drawn = np.random.default_rng(seed).permutation(len(undecided))[:_MAX_CANDIDATES]
    return [undecided[place] for place in sorted(drawn.tolist())], len(undecided)


def _distinct(layout: Layout, ids: Sequence[str], rows: np.ndarray, guesses: np.ndarray) -> list[int]:
    """Return the numbers of the images that are no copies, by what the audit has measured copies of this data to be."""
    labelled, record = dataset.read(layout).of(*SPLITS), audit.read(layout.audit)
    cosine, wanted = _COPIES if record is None else (record.calibration.cosine, record.calibration.correlations)
    known = features.opened(layout).at((backbone_folder.LAST,)).read(labelled.image_ids)
    new, old = pixels.opened(layout.of_unlabelled()), pixels.opened(layout)
    where = unlabelled.read(layout).where

    def read(numbers: np.ndarray) -> np.ndarray:
        first = {ids[number]: where[ids[number]] for number in numbers if number < len(ids)}
        second = labelled[numbers[numbers >= len(ids)] - len(ids)].where
        return np.concatenate([source(some) for source, some in ((new, first), (old, second)) if some])

    return without_copies(
        rows, known, read, cosine, np.resize(wanted, max(int(guesses.max()) + 1, len(wanted)))[guesses]
    )


def write(folder: Path, images: Sequence[Proposed]) -> Path:
    """Write next.csv, whose column label is for a person to fill in; return its path."""
    file = folder / LIST
    rows = [(each.image_id, each.path, each.guess, f"{each.probability:.4f}", each.second, "") for each in images]
    write_text(file, reviewed.spreadsheet(COLUMNS, rows))
    return file


def read(file: Path) -> tuple[list[Proposed], dict[str, str]]:
    """Return the images of a list that `write` has written, and the labels by image_id; DataError if it is none."""
    try:
        lines = reviewed.cells(file, COLUMNS, ("image_id", "label"))
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}). The list of `headstart next` was expected."
        ) from None
    images: list[Proposed] = []
    labels: dict[str, str] = {}
    for number, values in lines:
        try:
            probability = float(values["probability"].replace(",", ".") or 0)
        except ValueError:
            raise DataError(f"{file.name}, line {number}: '{values['probability']}' is no probability.") from None
        images.append(Proposed(values["image_id"], values["path"], values["guess"], probability, values["second"]))
        label = values["label"].strip()
        if label and labels.setdefault(values["image_id"], label) != label:
            raise DataError(
                f"{file.name}, line {number}: there is another label of {values['path']} above. One was expected."
            )
    return images, labels
