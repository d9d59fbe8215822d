"""A file's way from its name to what is in it: opened, decoded, and remembered while it does not change.

Files with labels and files without go the same way. What is done with them is left to `validate` and `unlabelled`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from headstart.base.cores import n_cores
from headstart.base.errors import count_and_name, counted
from headstart.base.progress import bar, say
from headstart.base.reading import Limits, NotReadError, read
from headstart.images.deep import ALL_BITS
from headstart.images.formats import UnreadableError
from headstart.images.limited import Reader
from headstart.known_files import Contents, KnownFiles, clock_ns, stamp
from headstart.listing import Found, Listing

_HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}


class Looked(NamedTuple):
    """The contents of a file; `reason` is set if it cannot be used."""

    found: Found
    image_id: str
    format: str
    width_px: int
    height_px: int
    n_bytes: int
    bits: int | None  # that the values use; None: a file with 8 bits a channel
    reason: str | None
    is_copy: bool = False  # of a usable file, under the same label
    is_dropped: bool = False  # by a decision in reviewed.csv
    copy_in_train: bool = False  # whether a copy of this held-out file is in the given train


@dataclass(frozen=True)
class Looking:
    """How files are opened."""

    reader: Reader
    folder: Path  # that paths are relative to
    limits: Limits
    accepts_damaged: bool = False  # JPEGs of which a part is lost

    def __call__(self, found: Found, bits: int = ALL_BITS) -> Looked:
        """Read and decode one file, whose values have `bits` bits where it has 16 bits a channel."""
        try:
            data = read(found.path, self.folder, self.limits)
        except NotReadError as error:
            return Looked(found, "", "", 0, 0, 0, None, str(error))
        except Exception as error:  # OSError, or anything that the file system of a URL raises
            said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
            return Looked(found, "", "", 0, 0, 0, None, f"cannot be read: {said}"[:200])
        image_id = hashlib.sha256(data).hexdigest()
        try:
            image = self.reader.facts(data, bits)
        except UnreadableError as error:
            return Looked(found, image_id, "", 0, 0, len(data), None, str(error))
        reason = None
        if image.damage and not self.accepts_damaged:
            reason = f"a damaged JPEG, of which a part is lost ({image.damage})"
        return Looked(found, image_id, image.format, image.width_px, image.height_px, len(data), image.bits, reason)


def remembered(known: KnownFiles, found: Found, bits: int, limits: Limits) -> Looked | None:
    """Return what is known of a usable file that has not changed since it was opened, and may still be read."""
    contents = known.of(found.path, bits)
    return Looked(found, *contents, None) if contents and contents.n_bytes <= limits.max_bytes else None


def look_and_keep(looking: Looking, known: KnownFiles, found: Found, bits: int) -> Looked:
    """Open a file, and note what is in it if it can be used."""
    began_ns, seen = clock_ns(), stamp(found.path, known.folder)
    known.seen[found.path] = seen
    item = looking(found, bits)
    if item.reason is None:
        known.keep(found.path, bits, seen, began_ns, Contents(*item[1:7]))
    return item


def look_at_all(
    listing: Listing, bits: int | None, known: KnownFiles, looking: Looking
) -> tuple[list[Looked], int | None]:
    """Return the contents of all files, and how many of 16 bits a channel their values have.

    `bits` None: as many as the images together use. The result is None where no file has 16 bits a channel.
    """

    def look_at(files: Sequence[Found], of_bits: int) -> list[Looked]:
        there = [(found, remembered(known, found, of_bits, looking.limits)) for found in files]
        unknown = [found for found, item in there if item is None]
        with bar("checking", len(unknown), "image") as advance, ThreadPoolExecutor(n_cores()) as pool:
            opened = {}
            for item in pool.map(lambda found: look_and_keep(looking, known, found, of_bits), unknown):
                opened[item.found] = item
                advance(1)
        if len(unknown) < len(files):
            n_same = counted(len(files) - len(unknown), "image has", "images have")
            say(f"{n_same} not changed since the last check; {len(unknown):,} opened")
        return [item or opened[found] for found, item in there]

    looked = look_at(listing.found, bits or ALL_BITS)
    deep = [item for item in looked if item.bits is not None]
    if bits or not deep:
        return looked, bits
    used = max(item.bits for item in deep if item.bits is not None)
    if used == ALL_BITS:
        return looked, used
    # Of a few rare forms Pillow gives the higher byte alone: they are seen now, where they are read with fewer bits.
    again = {item.found: item for item in look_at([item.found for item in deep], used)}
    return [again.get(item.found, item) for item in looked], used


def set_duplicates_aside(looked: Iterable[Looked]) -> list[Looked]:
    """Return the same files, with `reason` set on copies of the same bytes.

    Under several labels, it is set on all copies, since the right label is unknown. Under one label, one copy stays:
    the held-out one (test, then val, then train), so that no test image is trained on; within a split the first path.
    It is marked if a copy was in train: what was measured on such an image before was too good.
    """
    by_id: dict[str, list[Looked]] = {}
    for item in looked:
        unique = item.image_id if item.reason is None else item.found.path  # unreadable files are no copies
        by_id.setdefault(unique, []).append(item)
    outcome: list[Looked] = []
    for copies in by_id.values():
        labels = sorted({item.found.label for item in copies})
        copies.sort(key=lambda item: (_HELD_OUT_FIRST[item.found.given_split], item.found.path))
        kept = copies[0].found.path
        if len(labels) > 1:
            reason = f"the same bytes under {len(labels)} labels: {count_and_name(labels)}"
            outcome += [item._replace(reason=reason) for item in copies]
        else:
            splits = [item.found.given_split for item in copies]
            leaked = splits[0] in ("val", "test") and "train" in splits
            others = (item._replace(reason=f"the same bytes as {kept}", is_copy=True) for item in copies[1:])
            outcome += [copies[0]._replace(copy_in_train=leaked), *others]
    return sorted(outcome, key=lambda item: item.found.path)
