"""reviewed.csv: what people have decided about single images. `validate` carries it out; no image file is touched."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from headstart.base.errors import DataError, count_and_name, counted, did_you_mean
from headstart.base.files import guarded, unguarded, write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "reviewed.csv"
Choice = Literal["keep", "drop", "change"]
CHOICES: tuple[Choice, ...] = ("keep", "drop", "change")


class Decision(NamedTuple):
    """A row of reviewed.csv, about the image with these bytes."""

    image_id: str  # SHA-256 of the bytes
    path: str  # for the reader
    decision: Choice  # keep: it is right as it is | drop: do not use it | change: use it with what follows
    label: str = ""  # '' leaves the data's own
    group: str = ""
    split: str = ""  # train, val or test, where the data give splits


class About(NamedTuple):
    """What the data say of an image."""

    path: str
    label: str
    group: str  # image_id if it is in none
    given_split: str | None


EMPTY = ",".join(Decision._fields) + "\n"  # the file before anything is decided


def read(file: Path) -> dict[str, Decision]:
    """Return the decisions by image_id, none if there is no file; DataError for a row that says nothing clear."""
    try:
        rows = cells(file, Decision._fields, ("image_id", "decision"))
    except FileNotFoundError:
        return {}
    found: dict[str, Decision] = {}
    for number, values in rows:
        decision = _checked(values, f"{file.name}, line {number}")
        if found.get(decision.image_id, decision) != decision:
            raise DataError(
                f"{file.name}, line {number}: there are two decisions about {decision.path or decision.image_id}. One"
                " was expected. Remove the other line."
            )
        found[decision.image_id] = decision
    return found


def cells(file: Path, columns: Sequence[str], needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the lines of a CSV that a person may have edited: number and cells, '' where there is none.

    Cells are as they were before `spreadsheet` guarded them. A semicolon may stand for the comma, as some spreadsheets
    have it. FileNotFoundError if there is no file; DataError for another kind of file.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file.name} is not UTF-8 text, as expected. Save it as UTF-8.") from None
    first = text.partition("\n")[0]
    separator = ";" if first.count(";") > first.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    found = []
    try:
        header = reader.fieldnames or []
        if missing := [name for name in needed if name not in header]:
            raise DataError(
                f"{file.name} has no column {' and '.join(missing)}. The columns {', '.join(columns)} were expected."
                " Mend its first line, or restore the file."
            )
        for row in reader:
            values = {name: unguarded(row.get(name) or "") for name in columns}
            if any(value.strip() for value in values.values()):
                found.append((reader.line_num, values))
    except csv.Error as error:
        raise DataError(f"{file.name}, line {reader.line_num + 1}: {error}. A CSV was expected. Mend it.") from None
    return found


def spreadsheet(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a CSV that shows every cell as text: none is a formula."""
    buffer = io.StringIO(newline="")
    plain, quoted = (csv.writer(buffer, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    plain.writerow(columns)
    for row in rows:
        cells = [guarded(cell) for cell in row]
        has_return = any("\r" in cell for cell in cells)  # which Python 3.11 would not quote
        (quoted if has_return else plain).writerow(cells)
    return buffer.getvalue()


def write(file: Path, decisions: Iterable[Decision]) -> None:
    """Write the decisions, sorted by path; a spreadsheet shows every cell as text."""
    rows = sorted(decisions, key=lambda one: (one.path, one))
    write_text(file, spreadsheet(Decision._fields, rows))


@contextmanager
def changing(file: Path) -> Iterator[dict[str, Decision]]:
    """Yield the decisions, and write what becomes of them; what another process writes meanwhile has to wait.

    On an exception the file stays as it is.
    """
    with _alone(file.parent):
        decisions = read(file)
        before = dict(decisions)
        yield decisions
        if decisions != before:
            write(file, decisions.values())


def add(file: Path, decisions: Sequence[Decision]) -> int:
    """Add decisions about images that have none, and return how many were added."""
    with changing(file) as known:
        new = {each.image_id: each for each in decisions if each.image_id not in known}
        known |= new
    return len(new)


class Grouping:
    """The groups of all images, with what was decided about them, and how images become one group."""

    def __init__(self, images: Mapping[str, About], decisions: Mapping[str, Decision]) -> None:
        self._images, self.decisions = images, dict(decisions)
        self._members: dict[str, set[str]] = defaultdict(set)
        self._learnt_from: dict[str, set[str]] = defaultdict(set)  # label -> groups with images that may be in train
        self._held_out: set[str] = set()  # groups with images that the data hold out
        for image_id in images:
            self._members[self._group(image_id)].add(image_id)
        for group, members in self._members.items():
            self._note(group, members)
        given = {about.given_split for about in images.values()}
        self._n_needed = 3 if given <= {None, "train"} else 1 if given >= {"train", "val", "test"} else 2

    def join(self, image_ids: Iterable[str], name: str = "alike") -> dict[str, Decision]:
        """Return the decisions that make images one group, in one split: the most held-out one that the data give them.

        Splits that the data do not give are left to `split`, which keeps groups whole. What was decided before stays:
        another label, and that an image is dropped. Images that share a group with one of these come along, so that no
        group is torn. A new group's name begins with `name`.
        """
        from headstart.base.tables import SPLIT_NAMES  # with polars, as in `_checked`

        used = sorted(image_id for image_id in image_ids if image_id in self._images and not self._is_dropped(image_id))
        touched = {self._group(image_id) for image_id in used}
        whole = {image_id for group in touched for image_id in self._members[group]}
        named = sorted(touched - self._images.keys(), key=lambda group: (-len(self._members[group]), group))
        if len(whole) < 2:
            return {}
        target = named[0] if named else f"{name} {used[0][:12]}"
        given = {image_id: self._given_split(image_id) for image_id in whole if not self._is_dropped(image_id)}
        sides = {split for split in given.values() if split}
        side = max(sides, key=SPLIT_NAMES.index) if len(sides) > 1 else ""
        moved = {
            image_id: self._moved(image_id, target, side)
            for image_id in sorted(given)
            if image_id in used or self._group(image_id) != target or (side and given[image_id] != side)
        }
        self.decisions |= moved
        for group in touched:
            self._members.pop(group)
        for groups in (self._held_out, *self._learnt_from.values()):
            groups -= touched
        self._members[target] = whole
        self._note(target, whole)
        return moved

    def leaves_enough(self, image_ids: Iterable[str]) -> bool:
        """Return whether `split` can still fill its splits if these become one group.

        Each class needs a group for each split, or, where the data give splits, one in train and one for each split
        that is drawn from it. A class that lacks them anyway is none the worse.
        """
        touched = {self._group(image_id) for image_id in image_ids if image_id in self._images}
        stays = not touched & self._held_out
        return all(
            len(groups) - len(groups & touched) + stays >= min(self._n_needed, len(groups))
            for groups in self._learnt_from.values()
            if groups & touched
        )

    def _note(self, group: str, members: Iterable[str]) -> None:
        for image_id in members:
            if self._is_dropped(image_id):
                continue
            if self._given_split(image_id) in (None, "train"):
                self._learnt_from[self._label(image_id)].add(group)
            else:
                self._held_out.add(group)

    def _moved(self, image_id: str, group: str, side: str) -> Decision:
        about, before = self._images[image_id], self.decisions.get(image_id)
        label = "" if before is None else about.label if before.decision == "keep" else before.label
        split = side or ("" if before is None else before.split)
        return Decision(image_id, about.path, "change", label, group, split)

    def _group(self, image_id: str) -> str:
        before = self.decisions.get(image_id)
        return (before and before.group) or self._images[image_id].group

    def _label(self, image_id: str) -> str:
        before = self.decisions.get(image_id)
        return (before and before.label) or self._images[image_id].label

    def _given_split(self, image_id: str) -> str | None:
        before = self.decisions.get(image_id)
        return (before and before.split) or self._images[image_id].given_split

    def _is_dropped(self, image_id: str) -> bool:
        return image_id in self.decisions and self.decisions[image_id].decision == "drop"


def absent(decisions: Mapping[str, Decision], image_ids: Iterable[str]) -> list[Decision]:
    """Return the decisions about images that are not among these."""
    there = set(image_ids)
    return [each for each in decisions.values() if each.image_id not in there]


def told(decisions: Mapping[str, Decision], image_ids: Iterable[str]) -> list[str]:
    """Return what the decisions change among these images, and how many concern others, as one line for the user."""
    if not decisions:
        return []
    gone = absent(decisions, image_ids)
    counts = Counter(each.decision for each in decisions.values()) - Counter(each.decision for each in gone)
    dropped = counted(counts["drop"], "image is", "images are")
    said = f"by {NAME} {dropped} dropped, {counts['change']} changed and {counts['keep']} kept"
    if gone:
        named = count_and_name(each.path or each.image_id for each in gone)
        said += f"; {counted(len(gone), 'decision is', 'decisions are')} about images that are not here ({named})"
    return [said]


def check_splits(decisions: Mapping[str, Decision], given: Mapping[str, str | None]) -> None:
    """Raise DataError for a split that no image has in `given`, image_id -> the split that the data give.

    Where they give none, or not this one, the image would be all that is held out.
    """
    splits = sorted({split for split in given.values() if split})
    other = [each for each in decisions.values() if each.split not in {"", *splits} and each.image_id in given]
    if other:
        named = count_and_name(sorted(f"{each.path or each.image_id}: {each.split}" for each in other))
        expected = f"Of {' and '.join(splits)}, which they give, one was" if splits else "No split was"
        raise DataError(
            f"{NAME} puts {len(other)} images in splits that the data do not give ({named}). {expected} expected. Give"
            " them a group, which no split separates, or remove the split."
        )


def _checked(values: dict[str, str], where: str) -> Decision:
    from headstart.base.tables import SPLIT_NAMES  # with polars, which those who only need the file's name lack

    values |= {name: values[name].strip() for name in ("image_id", "decision", "split")}  # a label may end in a space
    choice, split = values["decision"], values["split"]
    if len(values["image_id"]) != 64 or set(values["image_id"]) - set("0123456789abcdef"):
        raise DataError(
            f"{where}: image_id is '{values['image_id'][:80]}'. The SHA-256 of the image, 64 hexadecimal digits, was"
            " expected, as in artifacts/splits.parquet. Mend it, or remove the line."
        )
    if choice not in CHOICES:
        hint = did_you_mean(choice, CHOICES)
        raise DataError(
            f"{where}: decision is '{choice[:80]}'.{hint} One of {', '.join(CHOICES)} was expected. Mend it."
        )
    if split and split not in SPLIT_NAMES:
        raise DataError(f"{where}: split is '{split[:80]}'. One of {', '.join(SPLIT_NAMES)} was expected. Mend it.")
    changes = [name for name in ("label", "group", "split") if values[name].strip()]
    if (choice == "change") != bool(changes):
        wanted = (
            "a label, a group or a split was expected beside `change`"
            if choice == "change"
            else (f"nothing was expected beside `{choice}`, and there is a {count_and_name(changes)}")
        )
        raise DataError(f"{where}: {wanted}. Mend the line.")
    return Decision(**values)  # type: ignore[arg-type]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which leaves no file behind; where the system has none, go on without."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
