"""Find the labelled files under data.root, class folders or a manifest, and all other files that lie there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

import polars as pl

from headstart import class_folders
from headstart.base.errors import DataError, count_and_name, counted
from headstart.base.files import is_local
from headstart.base.validation import Aside
from headstart.class_folders import Reading
from headstart.image_files import ABSENT, OUTSIDE, SPECIAL, UNKNOWN, Below, Places, below, no_image
from headstart.images.formats import EXTENSIONS, not_read
from headstart.manifest_files import COLUMNS, check_manifest, read_manifest

if TYPE_CHECKING:
    from upath import UPath

_IF_YOURS = (
    "If these are yours, set data.allow_outside to true: `headstart set data.allow_outside=true` in a project,"
    " `--set data.allow_outside=true` with `headstart new`."
)
_MANY = 100_000  # values that are remembered while a manifest is read


class NoImageError(DataError):
    """There is no image; `stray` are the files that there are."""

    def __init__(self, message: str, stray: list[Aside]) -> None:
        super().__init__(message)
        self.stray = stray


class Found(NamedTuple):
    """A file, with what its path or the manifest says of it."""

    path: str  # relative to the data's folder, separated by /
    label: str
    given_split: str | None
    group: str | None
    slices: tuple[tuple[str, str], ...] = ()  # such as (camera, front), (site, Oslo)


@dataclass(frozen=True)
class Listing:
    """The form of data.root, and its files."""

    form: str  # in words, for the log and the report
    folder: Path  # to which paths are relative
    found: list[Found]
    stray: list[Aside]  # all other files below the folder
    linked: Sequence[str] = ()  # folders that lie elsewhere, into which DVC does not look


def list_images(root: Path, shown: str, layout: str = class_folders.AUTO, outside: bool = False) -> Listing:
    """List the files of `root`, class folders that are read by `layout`, or a manifest. Messages name it `shown`.

    DataError if it is neither, if its folders can be read in two ways, or if it leads elsewhere without `outside`.
    """
    try:
        is_manifest = root.is_file() and root.suffix.lower() in (".csv", ".parquet")
        is_folder, is_there = root.is_dir(), root.exists()
    except OSError as error:  # such as a name that is too long
        raise DataError(
            f"data.root is '{shown[:60]}', which cannot be read ({error.strerror}). A folder of class folders, or a"
            " .csv or .parquet manifest was expected. Set data.root in params.yaml."
        ) from None
    if is_manifest:
        if layout != class_folders.AUTO:
            raise DataError(
                f"data.layout is '{layout}', and data.root is '{shown}', a manifest, which has columns in place of"
                " folders. auto was expected. Set data.layout in params.yaml."
            )
        return _list_manifest(root, shown, outside)
    if not is_folder:
        wrong = "is a file of another kind" if is_there else "does not exist"
        raise DataError(
            f"data.root is '{shown}', which {wrong}. A folder of class folders, or a .csv or .parquet manifest was"
            " expected. Set data.root in params.yaml."
        )
    return _list_folders(root, shown, layout, outside)


def _list_folders(root: Path, shown: str, layout: str, outside: bool) -> Listing:
    names, stray, linked = _names_below(root, shown, outside)
    found, images = [], []
    for path in names:
        if said := no_image(path):
            stray.append(Aside(path, said, counted=False))
        elif said := not_read(path):
            stray.append(Aside(path, said))
        else:
            images.append((path, *path.rpartition("/")[::2]))
    folders = {each: tuple(each.split("/")) if each else () for _, each, _ in images}
    with_images = {folder for _, folder, name in images if name.lower().endswith(EXTENSIONS)}
    reading = class_folders.read({folders[folder] for folder in with_images}, layout, shown)
    places = {folder: reading.place(names) for folder, names in folders.items()}
    for path, folder, name in images:
        place = places[folder]
        if isinstance(place, str):
            stray.append(Aside(path, place))
        elif not name.lower().endswith(EXTENSIONS):
            stray.append(Aside(path, _no_extension(path)))
        else:
            found.append(Found(path, *place))
    if not found:
        raise _no_image(shown, reading, stray)
    return Listing(reading.form, root, found, stray, linked)


def _names_below(root: Path, shown: str, outside: bool) -> tuple[Sequence[str], list[Aside], Sequence[str]]:
    """Return the files below a folder, the names that are set aside at once, and the linked folders that are read."""
    if not is_local(root):
        remote = cast("UPath", root)
        found = remote.fs.find(remote.path)
        return sorted(PurePosixPath(each).relative_to(remote.path).as_posix() for each in found), [], []
    there = below(root, outside)
    _check_special(there, shown)
    leading_out = [each for each in there.outside if not no_image(each.path)]
    if away := [f"{each.path}: {each.reason}" for each in leading_out if each.is_folder]:
        folders = counted(len(away), f"folder in '{shown}' lies", f"folders in '{shown}' lie")
        raise DataError(
            f"{folders} elsewhere ({count_and_name(away)}). Folders inside data.root were expected. {_IF_YOURS}"
        )
    way_in = "which is not in data.root; set data.allow_outside to true if it is yours"
    stray = [Aside(each.path, f"{each.reason}, {way_in}") for each in leading_out]
    stray += [Aside(each.path, each.reason, counted=False) for each in there.again]
    return there.files, stray, there.linked


def check_files(root: Path, shown: str) -> None:
    """Raise DataError as `list_images` does where a folder holds what DVC cannot read; nothing is opened."""
    if is_local(root) and root.is_dir():
        _check_special(below(root, follows_out=False), shown)


def _check_special(there: Below, shown: str) -> None:
    """Raise DataError where a folder holds what is neither a file nor a folder: DVC fails there, or waits for ever."""
    if odd := [f"{each.path}: {each.reason}" for each in there.special]:
        names = counted(len(odd), f"name in '{shown}' is", f"names in '{shown}' are")
        raise DataError(
            f"{names} neither a file nor a folder that can be read ({count_and_name(odd)})."
            " Only such, with names in UTF-8, were expected: DVC fails at others, or waits for them. Remove or rename"
            " them, or move them out of the folder."
        )


def _no_image(shown: str, reading: Reading, stray: list[Aside]) -> NoImageError:
    tells = next((f" {each.path}: {each.reason}." for each in stray if not_read(each.path)), "")
    levels = "/".join(f"<{level}>" for level in reading.levels)
    way_out = " Set data.layout to 'class' if these folders are the classes." if reading.splits else ""
    return NoImageError(
        f"data.root is '{shown}', which holds no image in a class folder ({len(stray)} other files).{tells}"
        f" {levels}/<image> was expected, ending in {', '.join(EXTENSIONS)}. Set data.root in params.yaml.{way_out}",
        stray,
    )


def list_unlabelled(root: Path, shown: str, outside: bool = False) -> Listing:
    """List the images of data.unlabelled, in folders of any names, or a manifest with path and perhaps label.

    `Found.label` is '' where none is given. DataError as of `list_images`; none for a manifest without rows.
    """
    try:
        is_folder, is_there = root.is_dir(), root.exists()
    except OSError:  # such as a name that is too long
        is_folder = is_there = False
    if not is_there or not (is_folder or root.suffix.lower() in (".csv", ".parquet")):
        wrong = "is a file of another kind" if is_there else "does not exist"
        raise DataError(
            f"data.unlabelled is '{shown}', which {wrong}. A folder of images, or a .csv or .parquet manifest"
            " with the column path was expected. Set data.unlabelled in params.yaml; unlabelled.csv stands for none."
        )
    if is_folder:
        names, stray, linked = _names_below(root, shown, outside)
        said = {path: no_image(path) or not_read(path) or _no_extension(path) for path in names}
        stray += [Aside(path, why, counted=not no_image(path)) for path, why in said.items() if why]
        found = [Found(path, "", None, None) for path in names if not said[path]]
        return Listing("a folder", root, found, stray, linked)
    table = read_manifest(root, shown, ("path",), "data.unlabelled")
    if "label" not in table.columns:
        table = table.with_columns(label=pl.lit(None, pl.String))
    if not table.height:
        return Listing("manifest", root.parent, [], [])
    check_manifest(table.with_columns(label=pl.col("label").fill_null("-")), shown)
    found = [Found(path, label or "", None, None) for path, label in table.select("path", "label").iter_rows()]
    _check_places(found, root.parent, shown, outside)
    return Listing("manifest", root.parent, found, [])


def _no_extension(path: str) -> str:
    name = PurePosixPath(path)
    return "" if path.lower().endswith(EXTENSIONS) else f"not an image file: '{name.suffix or name.name}'"


def _list_manifest(path: Path, shown: str, outside: bool) -> Listing:
    table = read_manifest(path, shown)
    check_manifest(table, shown)
    folder = path.parent
    found = list(_rows(table))
    _check_places(found, folder, shown, outside)
    given = " and ".join(name for name in ("split", "group") if name in table.columns)
    return Listing("manifest" + (f" with {given}" if given else ""), folder, found, [])


def _rows(table: pl.DataFrame) -> Iterator[Found]:
    """Yield the rows of a manifest. Equal labels, splits and slices are one object, for rows may be millions."""
    names = [name for name in table.columns if name not in COLUMNS]
    blank = pl.lit(None, pl.String)
    wanted = [pl.col(name) if name in table.columns else blank.alias(name) for name in (*COLUMNS, *names)]
    told: dict[tuple[str | None, ...], tuple[tuple[str, str], ...]] = {}
    same: dict[str, str] = {}
    for path, label, split, group, *others in table.lazy().select(wanted).collect().iter_rows():
        values = tuple(others)
        if values not in told:
            if len(told) > _MANY:
                told.clear()
            given = zip(names, values, strict=True)
            told[values] = tuple((name, value.strip()) for name, value in given if value and value.strip())
        if len(same) > _MANY:
            same.clear()
        yield Found(path, same.setdefault(label, label), split and same.setdefault(split, split), group, told[values])


def _check_places(found: Sequence[Found], folder: Path, shown: str, outside: bool) -> None:
    """Raise DataError where a path is not there, is no file, or leads where a manifest may not lead by itself."""
    wrong: dict[str, list[str]] = {}
    places = Places(folder, outside)
    for each in found:
        if said := places.wrong(each.path):
            wrong.setdefault(said, []).append(each.path)
    told = {
        ABSENT: (
            "do not exist",
            "Paths relative to the manifest's folder, or URLs were expected. Correct the manifest.",
        ),
        SPECIAL: ("are no files", "Files, or links to files, were expected. Correct the manifest."),
        UNKNOWN: (
            "have a scheme that is not known here",
            "http, https, s3, gs, or another that fsspec knows, was expected. Correct the manifest.",
        ),
        OUTSIDE: (
            "lead out of its folder",
            f"Paths below the manifest's folder, or URLs of the public network were expected. {_IF_YOURS}",
        ),
    }
    for kind, (what, remedy) in told.items():
        if names := wrong.get(kind):
            raise DataError(
                f"{len(names)} of {len(found)} paths in '{shown}' {what} ({count_and_name(names)}). {remedy}"
            )
