"""How folders in folders are read: which level names the class, which the split, and what the others are.

A reading is a pattern of levels, as in `data.layout`: `class`, `split/class`, `*/class`, `camera/class`. `*` is a level
that tells nothing; any other word names a level that is kept as a slice. Where two readings are possible, none is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headstart.base.errors import DataError, count_and_name, counted
from headstart.base.tables import SPLIT_NAMES

AUTO = "auto"
CLASS, SPLIT, GROUP, ANY = "class", "split", "group", "*"
_SPLITS = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
_FILLERS = {"set", "data", "dataset", "images", "imgs", "split"}  # Training_set, test-images

Folders = tuple[str, ...]  # the names of the folders that a file is in, from the root


class Place(NamedTuple):
    """What the folders of a file say of it."""

    label: str
    given_split: str | None
    group: str | None
    slices: tuple[tuple[str, str], ...]  # name of the level, name of the folder


@dataclass(frozen=True)
class Reading:
    """What each level of folders says."""

    levels: Sequence[str]
    splits: Mapping[str, str] = field(default_factory=dict)  # folder -> split
    around: Sequence[str] = ()  # folders that hold all others, one in the other
    is_given: bool = False  # by data.layout

    @property
    def pattern(self) -> str:
        """The levels as in `data.layout`."""
        return "/".join(self.levels)

    @property
    def form(self) -> str:
        """The reading in words, for the log and the report."""
        said = "class folders"
        if self.splits:
            order = sorted(self.splits, key=lambda name: (SPLIT_NAMES.index(self.splits[name]), name))
            told = [name if name == self.splits[name] else f"{name} is {self.splits[name]}" for name in order]
            said = f"pre-split class folders ({', '.join(told)})"
        plain = [CLASS] if not self.splits else [SPLIT, CLASS]
        if self.is_given or [level for level in self.levels if level != ANY] != plain:
            said += f", by the levels {self.pattern}"
        return said + (f", in '{'/'.join(self.around)}'" if self.around else "")

    def place(self, folders: Folders) -> Place | str:
        """Return what the folders of a file say, or why they say nothing."""
        named = dict(zip(self.levels, folders, strict=False))
        if SPLIT in named and named[SPLIT] not in self.splits:
            return f"not below {', '.join(self.splits)}"
        if len(folders) < len(self.levels):
            return "not in a class folder" if not self.is_given else f"not as deep as data.layout says: {self.pattern}"
        slices = tuple((level, name) for level, name in named.items() if level not in (CLASS, SPLIT, GROUP, ANY))
        return Place(named[CLASS], self.splits.get(named.get(SPLIT, "")), named.get(GROUP), slices)


def split_of(name: str) -> str | None:
    """Return the split that a folder of this name customarily holds, whatever its case: Training, valid, TEST_SET."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word and word not in _FILLERS]
    return _SPLITS.get(words[0]) if len(words) == 1 else None


def read(folders: Collection[Folders], layout: str, shown: str) -> Reading:
    """Return how folders are read by `layout`, or with `auto` in the one possible way.

    DataError where two ways are possible, or two folders claim one split. `folders` are those of each image.
    """
    inside = {each for each in folders if each}
    if layout != AUTO:
        given = layout.split("/")
        at = given.index(SPLIT) if SPLIT in given else None
        names = {each[at] for each in inside if len(each) > at} if at is not None else set()
        return Reading(given, _splits(names, shown), is_given=True)
    levels: list[str] = []
    splits: dict[str, str] = {}
    around: list[str] = []
    while True:
        names = {each[0] for each in inside}
        if not splits and (splits := _given_splits(names, shown)):
            levels.append(SPLIT)
            inside = {each[1:] for each in inside if each[0] in splits and len(each) > 1}
        elif len(names) == 1 and _is_around(inside, bool(splits), shown):
            levels.append(ANY)
            around += names
            inside = {each[1:] for each in inside if len(each) > 1}
        else:
            break
    return _of_classes(inside, levels, splits, around, shown)


def _of_classes(
    inside: set[Folders], levels: list[str], splits: dict[str, str], around: list[str], shown: str
) -> Reading:
    """Return the reading whose next level is the class, if what lies below it leaves no doubt."""
    outer, inner = {each[0] for each in inside}, {each[1] for each in inside if len(each) > 1}
    here = Reading([*levels, CLASS], splits, around)
    if len(inner) < 2:  # one folder inside each class, or none, cannot be classes
        return here
    found = {} if splits or any(len(each) > 2 for each in inside) else _given_splits(inner, shown)
    if found and set(found) == inner:
        return Reading([*levels, CLASS, SPLIT], found, around)
    above: dict[str, set[str]] = {}
    for each in inside:
        if len(each) > 1:
            above.setdefault(each[1], set()).add(each[0])
    repeated = sorted(name for name, parents in above.items() if len(parents) > 1)
    only_folders = sorted(name for name in outer if (name,) not in inside)
    if not repeated and not only_folders:
        return here
    if repeated:
        why = f"{counted(len(repeated), 'folder repeats', 'folders repeat')} in several others"
    else:
        why = f"{counted(len(only_folders), 'folder holds', 'folders hold')} only folders"
    why += f" ({count_and_name(repeated or only_folders)})"
    one, other = here.pattern, "/".join([*levels, ANY, CLASS])
    kept = "/".join([*levels, "source", CLASS])
    raise DataError(
        f"data.root is '{shown}', where {why}, so that the classes may be {len(outer)}"
        f" ({count_and_name(sorted(outer))}) or {len(inner)} ({count_and_name(sorted(inner))}). Folders that can be"
        f" read in one way were expected. Set data.layout to '{one}' for the former or to '{other}' for the latter;"
        f" '{kept}' also keeps the outer folders as a slice of the results."
    )


def _is_around(inside: set[Folders], has_splits: bool, shown: str) -> bool:
    """Return whether the one folder at this level is no class: folders inside it are the classes or the splits."""
    below = {each[1:] for each in inside if len(each) > 1}
    names = {each[0] for each in below}
    if len(names) == 1 and _is_around(below, has_splits, shown):
        return True
    return len(names) > 1 or (not has_splits and bool(_given_splits(names, shown)))


def _given_splits(names: set[str], shown: str) -> dict[str, str]:
    """Return folder -> split where the names of folders are those of splits: train, beside another or alone."""
    found = {name: split_of(name) for name in names}
    splits = set(found.values()) - {None}
    if "train" not in splits or (splits == {"train"} and len(names) > 1):
        return {}
    return _splits(names, shown)


def _splits(names: set[str], shown: str) -> dict[str, str]:
    found = {name: split for name in sorted(names) if (split := split_of(name))}
    for split in SPLIT_NAMES:
        if len(same := [name for name in found if found[name] == split]) > 1:
            raise DataError(
                f"data.root is '{shown}', where {len(same)} folders are called like the split {split}"
                f" ({count_and_name(same)}). One for each of train, val and test was expected. Join them or"
                " rename one."
            )
    return dict(sorted(found.items(), key=lambda item: SPLIT_NAMES.index(item[1])))
