"""reviewed.csv: what people have decided about single images. `validate` carries it out; no image file is touched."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from headstart.base.errors import DataError, count_and_name, did_you_mean
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


EMPTY = ",".join(Decision._fields) + "\n"  # the file before anything is decided


def read(file: Path) -> dict[str, Decision]:
    """Return the decisions by image_id, none if there is no file; DataError for a row that says nothing clear."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise DataError(f"{file.name} is not UTF-8 text, as expected. Save it as UTF-8.") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    header = reader.fieldnames or []
    if missing := [name for name in ("image_id", "decision") if name not in header]:
        raise DataError(
            f"{file.name} has no column {' and '.join(missing)}. The columns {', '.join(Decision._fields)} were"
            " expected. Mend its first line, or restore the file with git."
        )
    found: dict[str, Decision] = {}
    for number, row in enumerate(reader, 2):
        values = {name: unguarded((row.get(name) or "").strip()) for name in Decision._fields}
        if not any(values.values()):
            continue
        decision = _checked(values, f"{file.name}, line {number}")
        if found.get(decision.image_id, decision) != decision:
            raise DataError(
                f"{file.name}, line {number}: there are two decisions about {decision.path or decision.image_id}. One"
                " was expected. Remove the other line."
            )
        found[decision.image_id] = decision
    return found


def write(file: Path, decisions: Iterable[Decision]) -> None:
    """Write the decisions, sorted by path; a spreadsheet shows every cell as text."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Decision._fields)
    writer.writerows([guarded(cell) for cell in each] for each in sorted(decisions, key=lambda one: (one.path, one)))
    write_text(file, buffer.getvalue())


def add(file: Path, decisions: Sequence[Decision]) -> int:
    """Add decisions about images that have none, and return how many were added."""
    known = read(file)
    new = [each for each in decisions if each.image_id not in known]
    if new:
        write(file, [*known.values(), *new])
    return len(new)


def absent(decisions: Mapping[str, Decision], image_ids: Iterable[str]) -> list[Decision]:
    """Return the decisions about images that are not among these."""
    there = set(image_ids)
    return [each for each in decisions.values() if each.image_id not in there]


def _checked(values: dict[str, str], where: str) -> Decision:
    from headstart.base.tables import SPLIT_NAMES  # with polars, which those who only need the file's name lack

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
    changes = [name for name in ("label", "group", "split") if values[name]]
    if (choice == "change") != bool(changes):
        wanted = (
            "a label, a group or a split was expected beside `change`"
            if choice == "change"
            else (f"nothing was expected beside `{choice}`, and there is a {count_and_name(changes)}")
        )
        raise DataError(f"{where}: {wanted}. Mend the line.")
    return Decision(**values)  # type: ignore[arg-type]
