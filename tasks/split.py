"""Divide the images into train, val and test.

Reads the manifest and what was decided; writes artifacts/splits.parquet and artifacts/split_summary.json. With method
hash, an image's split depends only on its own group, the seed and the fractions: new images never move old ones, and a
change of one fraction leaves the other held-out split as it is.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from headstart.base import dataset, decisions, tables
from headstart.base.dataset import SplitSummary
from headstart.base.decisions import Decided, HeldOut
from headstart.base.errors import DataError, count_and_name, counted
from headstart.base.progress import say, warn
from headstart.base.tables import SPLIT_NAMES

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params, Split

_OF_2_TO_64 = 2**64


class Image(NamedTuple):
    """What the split of an image depends on."""

    group: str
    label: str
    given_split: str | None


class Move(NamedTuple):
    """A group that was moved into a split, because that had no image of a class."""

    label: str
    split: str
    source: str  # the split that it came from
    n_images: int


@dataclass(frozen=True)
class Outcome:
    """The split of every image, in the order given, with notes and warnings for the user."""

    splits: list[str]
    notes: list[str]
    warnings: list[str]
    lacking: dict[str, list[str]]  # split -> classes that had no image there


def divide(images: list[Image], settings: Split) -> Outcome:
    """Return each image's split; DataError if the data cannot be divided as the settings ask."""
    given = {image.given_split for image in images} - {None}
    if not given or given == {"train"}:
        notes = ["all images are given as train: the splits are drawn from them"] if given else []
        fractions = {"test": settings.test_fraction, "val": settings.val_fraction}
        return _draw(images, fractions, settings, notes)
    _check_given(images, given)
    if given == set(SPLIT_NAMES):
        return _honour(images, {}, ["the given train, val and test are kept"])
    held_out = "test" if "test" in given else "val"
    note = (
        "train and test are given: validation is drawn from train"
        if held_out == "test"
        else "train and val are given, but no test: the given val is the held-out test set,"
        " and validation is drawn from train"
    )
    inside = [image for image in images if image.given_split == "train"]
    drawn = _draw(inside, {"val": settings.val_fraction}, settings, [note])
    taken = iter(drawn.splits)
    splits = [next(taken) if image.given_split == "train" else "test" for image in images]
    missing = _missing_classes(images, splits)
    return Outcome(splits, drawn.notes, [*drawn.warnings, *_told(missing)], {**drawn.lacking, **missing})


def position(group: str, seed: int) -> float:
    """Return the position of a group in 0..1: test is below test_fraction, val above 1 - val_fraction."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / _OF_2_TO_64


def _draw(images: list[Image], fractions: dict[str, float], settings: Split, notes: list[str]) -> Outcome:
    groups: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        groups[image.group].append(image)
    at = {group: position(group, settings.seed) for group in groups}
    order = sorted(groups, key=lambda group: (at[group], group))
    _check_enough(groups, n_splits=len(fractions) + 1)
    drawing = _by_hash if settings.method == "hash" else _stratified
    split_of = drawing(order, at, groups, fractions)
    moves = _fill_empty(order, groups, split_of, [*fractions, "train"])
    lacking = {split: [move.label for move in moves if move.split == split] for split in SPLIT_NAMES}
    lacking = {split: labels for split, labels in lacking.items() if labels}
    return Outcome([split_of[image.group] for image in images], notes, _told_of(moves), lacking)


def _by_hash(
    order: list[str], at: dict[str, float], groups: dict[str, list[Image]], fractions: dict[str, float]
) -> dict[str, str]:
    low, high = fractions.get("test", 0.0), 1 - fractions["val"]
    return {group: "test" if at[group] < low else "val" if at[group] >= high else "train" for group in order}


def _stratified(
    order: list[str], at: dict[str, float], groups: dict[str, list[Image]], fractions: dict[str, float]
) -> dict[str, str]:
    """Take the groups with the lowest hashes of each class for test, the highest for val, up to the exact fraction."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for group in order:
        by_class[_main_label(groups[group])].append(group)
    split_of = dict.fromkeys(order, "train")
    for members in by_class.values():
        n_images = sum(len(groups[group]) for group in members)
        for split, candidates in (("test", members), ("val", members[::-1])):
            room = round(fractions.get(split, 0.0) * n_images)
            for group in candidates:
                if split_of[group] == "train" and len(groups[group]) <= room:
                    split_of[group] = split
                    room -= len(groups[group])
    return split_of


def _fill_empty(
    order: list[str], groups: dict[str, list[Image]], split_of: dict[str, str], splits: list[str]
) -> list[Move]:
    """Move a group into each split that lacks a class; return the moves.

    It is the group with the lowest hash whose split keeps another group of each of its classes.
    """
    labels_of = {group: {image.label for image in members} for group, members in groups.items()}
    n_groups = Counter((split_of[group], label) for group in order for label in labels_of[group])
    moves = []
    for label in sorted({label for labels in labels_of.values() for label in labels}):
        for split in splits:
            if n_groups[split, label]:
                continue
            spare = (
                group
                for group in order
                if label in labels_of[group] and all(n_groups[split_of[group], other] > 1 for other in labels_of[group])
            )
            group = next(spare, None)
            if group is None:
                raise DataError(
                    f"class '{label}' has no group that can move to {split} without emptying another split. Three or"
                    " more groups per class were expected. Add images in other groups, or give the splits yourself."
                )
            for other in labels_of[group]:
                n_groups[split_of[group], other] -= 1
                n_groups[split, other] += 1
            moves.append(Move(label, split, split_of[group], len(groups[group])))
            split_of[group] = split
    return moves


def _told_of(moves: list[Move]) -> list[str]:
    """Return one warning for all moves into a split."""
    warnings = []
    for split in SPLIT_NAMES:
        own = [move for move in moves if move.split == split]
        n_images, sources = sum(move.n_images for move in own), sorted({move.source for move in own})
        if own:
            said = _classes([move.label for move in own], "had", split)
            warnings.append(f"{said}: {n_images} moved there from {' and '.join(sources)}")
    return warnings


def leaked(splits: list[str], copy_in_train: list[bool]) -> tuple[dict[str, int], list[str]]:
    """Return how many held-out images of each split had a copy in the given train, and a warning for each split."""
    n_images = Counter(splits)
    found = Counter(split for split, is_copied in zip(splits, copy_in_train, strict=True) if is_copied)
    told = [
        f"leakage in the data: {found[split]} of {n_images[split]} given {split} images"
        f" ({found[split] / n_images[split]:.0%}) have a byte-identical copy in the given train. These copies are set"
        " aside and not trained on; near copies, of another size or compression, are not found so"
        for split in ("test", "val")
        if found[split]
    ]
    return dict(found), told


def held_out_changes(
    decided: list[Decided], split_of: dict[str, str], given: set[str | None], settings: Split
) -> HeldOut:
    """Return how decisions have changed the split test. `split_of`: image_id -> split, of all images that
    are used; `given`: the splits that the data give.

    Where an image would be without its decision follows from the given split, or from the hash of its group. By method
    stratified it depends on all images, so nothing tells where a dropped one would be.
    """
    name = "test" if "test" in given else "val"
    is_drawn = given <= {"train", None}

    def was_held_out(each: Decided) -> bool | None:
        if not is_drawn:
            return each.data_split == name
        return position(each.data_group, settings.seed) < settings.test_fraction if settings.method == "hash" else None

    # Of files with the same bytes the held-out one counts.
    by_id = {each.image_id: each for each in sorted(decided, key=lambda each: was_held_out(each) is True)}
    counts = Counter[str]()
    for image_id, each in by_id.items():
        before, is_now = was_held_out(each), split_of.get(image_id) == "test"
        if each.is_dropped:
            counts["n_dropped"] += bool(before)
            counts["n_unknown"] += before is None
        elif is_now:
            counts["n_relabelled"] += each.label != each.data_label
            counts["n_moved_in"] += before is False and (each.group, each.split) != (each.data_group, each.data_split)
        else:
            counts["n_moved_out"] += bool(before) and (each.group, each.split) != (each.data_group, each.data_split)
    return HeldOut(**{field: counts[field] for field in HeldOut.model_fields})


def _honour(images: list[Image], moved: dict[str, str], notes: list[str]) -> Outcome:
    splits = [moved.get(image.given_split or "", image.given_split or "") for image in images]
    missing = _missing_classes(images, splits)
    return Outcome(splits, notes, _told(missing), missing)


def _check_enough(groups: dict[str, list[Image]], n_splits: int) -> None:
    per_class = Counter(label for members in groups.values() for label in {image.label for image in members})
    if few := sorted(label for label, n_groups in per_class.items() if n_groups < n_splits):
        raise DataError(
            f"{counted(len(few), 'class has', 'classes have')} fewer images (or groups) than there are splits to fill"
            f" ({count_and_name(f'{label}: {per_class[label]}' for label in few)}). {n_splits} or more were expected,"
            " one per split. Add images, drop such classes by validate.min_images in params.yaml, or give the splits"
            " yourself (see data.root there)."
        )


def _check_given(images: list[Image], given: set[str | None]) -> None:
    if "train" not in given:
        raise DataError(
            f"the data give {', '.join(sorted(str(split) for split in given))}, but no train. A train split was"
            " expected. Add one, or give no splits."
        )
    splits_of: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits_of[image.group].add(image.given_split or "")
    if torn := sorted(group for group, splits in splits_of.items() if len(splits) > 1):
        raise DataError(
            f"{len(torn)} groups are in more than one given split ({count_and_name(torn)}), which would make held-out"
            " results too good. Each group in one split was expected. Correct the column split of the manifest."
        )
    trained = {image.label for image in images if image.given_split == "train"}
    if unknown := sorted({image.label for image in images} - trained):
        raise DataError(
            f"{counted(len(unknown), 'class has', 'classes have')} held-out images but none in train"
            f" ({count_and_name(unknown)}). Training images of every class were expected. Check the spelling of the"
            " folders or labels, or add training images."
        )


def _missing_classes(images: list[Image], splits: list[str]) -> dict[str, list[str]]:
    """Return the classes without an image in val and test: split -> sorted labels."""
    present = {(image.label, split) for image, split in zip(images, splits, strict=True)}
    labels = sorted({image.label for image in images})
    missing = {split: [label for label in labels if (label, split) not in present] for split in ("val", "test")}
    return {split: absent for split, absent in missing.items() if absent}


def _told(missing: dict[str, list[str]]) -> list[str]:
    """Return one warning for all classes that a split lacks."""
    return [_classes(labels, "has" if len(labels) == 1 else "have", split) for split, labels in missing.items()]


def _classes(labels: list[str], verb: str, split: str) -> str:
    if len(labels) == 1:
        return f"class '{labels[0]}' {verb} no image in {split}"
    return f"{len(labels)} classes {verb} no image in {split} ({count_and_name(labels)})"


def _main_label(members: list[Image]) -> str:
    return min(Counter(image.label for image in members).items(), key=lambda item: (-item[1], item[0]))[0]


def run(params: Params, layout: Layout) -> None:
    """Divide the images of the manifest, and write the table and its summary."""
    manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
    images = [Image(*row) for row in manifest.select("group", "label", "given_split").iter_rows()]
    outcome = divide(images, params.split)
    copies, told = leaked(outcome.splits, manifest["copy_in_train"].to_list())
    warnings = [*told, *outcome.warnings]
    splits = manifest.select("image_id", "path", "label", "group").with_columns(split=pl.Series(outcome.splits))
    counts = Counter(splits.select("split", "label").iter_rows())
    classes = sorted(set(splits["label"]))
    rows = decisions.read(layout.validation)
    given = {image.given_split for image in images} | {each.data_split for each in rows}
    split_of = dict(zip(manifest["image_id"], outcome.splits, strict=True))
    changed = held_out_changes(rows, split_of, given, params.split)
    notes = outcome.notes
    if changed.n_moved_in:
        further = counted(changed.n_moved_in, "further image", "further images")
        notes = [*notes[:-1], "; ".join([*notes[-1:], f"reviewed.csv moved {further} into test"])]
    summary = SplitSummary(
        classes=classes,
        n_images={split: sum(counts[split, label] for label in classes) for split in SPLIT_NAMES},
        images_per_class={split: {label: counts[split, label] for label in classes} for split in SPLIT_NAMES},
        notes=notes,
        warnings=warnings,
        lacking=outcome.lacking,
        copies_in_train=copies,
        decided=changed,
    )
    dataset.write(layout, splits, summary)
    for note in notes:
        say(note)
    for warning in warnings:
        warn(warning)
    if told_of := changed.told():
        warn(told_of)
    say(", ".join(f"{split} {n_images}" for split, n_images in summary.n_images.items()) + " images")
