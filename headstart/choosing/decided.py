"""next/decided.csv: what people have said of images without labels, on the page or in a list. No label is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headstart import reviewed
from headstart.base import dataset, unlabelled
from headstart.base.errors import DataError, count_and_name, did_you_mean
from headstart.choosing import proposal
from headstart.reviewed import Decision

if TYPE_CHECKING:
    from headstart.layout import Layout


class Added(NamedTuple):
    """What a list has changed in the file."""

    n_labels: int  # of the list, without those of images that the last run had with labels
    n_replaced: int  # of these, that are in the place of another answer


def labels_of(file: Path) -> dict[str, str]:
    """Return image_id -> label of the images that have one, without those that were left out."""
    return {image_id: each.label for image_id, each in reviewed.read(file).items() if each.label}


def add(layout: Layout, file: Path, labels: Mapping[str, str], may_be_new: bool) -> Added:
    """Add the labels of a list, image_id -> label. Another answer to the same image gives way; all others stay.

    DataError, and nothing is written, if there is none, if one is of an image that is not there, or is no class and
    not `may_be_new`.
    """
    where, data = unlabelled.read(layout).where, dataset.read(layout)
    known = set(data.table["image_id"])  # labels of an earlier round are among them
    if lost := sorted(set(labels) - set(where) - known):
        raise DataError(
            f"{len(lost)} labels are of images that are not in artifacts/unlabelled ({count_and_name(lost)}). Those of"
            " the last run were expected. Run `headstart run`, and choose again."
        )
    new = {image_id: label for image_id, label in labels.items() if image_id in where}
    if not new:
        raise DataError("no image has a new label. One at least was expected. Label some, on the page or in the list.")
    if not may_be_new:
        _check_classes(new, where, sorted({*data.classes, *labels_of(file).values()}))
    file.parent.mkdir(parents=True, exist_ok=True)
    with reviewed.changing(file) as decisions:
        given = {each: Decision(each, where[each], "change", label) for each, label in new.items()}
        n_replaced = sum(decisions.get(each, wanted) != wanted for each, wanted in given.items())
        decisions |= given
    return Added(len(new), n_replaced)


def _check_classes(labels: Mapping[str, str], where: Mapping[str, str], classes: Sequence[str]) -> None:
    other = {image_id: label for image_id, label in labels.items() if label not in classes}
    if other:
        hint = next((said for label in other.values() if (said := did_you_mean(label, classes))), "")
        named = count_and_name(f"{where[image_id]}: {label}" for image_id, label in other.items())
        raise DataError(
            f"{len(other)} labels are no class so far ({named}).{hint} One of {count_and_name(classes, 8)} was"
            " expected. Correct them, or add --new-classes to take them as new classes. Nothing is written."
        )


def check_read_back(sheet: Path, file: Path) -> None:
    """Raise DataError if a list of `headstart next` has labels that are not in the file, and would be overwritten."""
    if not sheet.exists():
        return
    _, labels = proposal.read(sheet)
    there = labels_of(file)
    if lost := [image_id for image_id, label in labels.items() if there.get(image_id) != label]:
        name = f"{sheet.parent.name}/{sheet.name}"
        raise DataError(
            f"{name} has {len(lost)} labels that were not read back, and would be overwritten. Run `headstart next"
            f" --from {name}` first, or move the file away."
        )
