"""Find the labelled files under data.root, class folders or a manifest, and all other files that lie there."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

import polars as pl

from headstart import class_folders
from headstart.base.errors import DataError, count_and_name, did_you_mean
from headstart.base.files import is_local, located
from headstart.base.tables import SPLIT_NAMES
from headstart.base.validation import Aside
from headstart.class_folders import Reading
from headstart.images import EXTENSIONS, not_read

if TYPE_CHECKING:
    from upath import UPath

_COLUMNS = ("path", "label", "split", "group")

# What nobody takes for a broken image. Files and folders of systems, in lower case:
_OF_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found"}
_DOCUMENTS = {
    *(".md", ".rst", ".txt", ".pdf", ".html", ".htm", ".doc", ".docx", ".xls", ".xlsx", ".log"),
    *(".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".toml", ".ini", ".dvc"),
    *(".py", ".ipynb", ".sh", ".db", ".sqlite", ".sha256", ".md5", ".zip", ".tar", ".gz", ".url", ".lnk"),
}
_DOCUMENT_NAMES = {
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "changelog",
    "makefile",
    "sha256sums",
}


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


def list_images(root: Path, shown: str, layout: str = class_folders.AUTO) -> Listing:
    """List the files of `root`, class folders that are read by `layout`, or a manifest. Messages name it `shown`.

    DataError if it is neither, or if its folders can be read in two ways.
    """
    if root.is_file() and root.suffix.lower() in (".csv", ".parquet"):
        if layout != class_folders.AUTO:
            raise DataError(
                f"data.layout is '{layout}', and data.root is '{shown}', a manifest, which has columns in place of"
                " folders. auto was expected. Set data.layout in params.yaml."
            )
        return _list_manifest(root, shown)
    if not root.is_dir():
        wrong = "is a file of another kind" if root.exists() else "does not exist"
        raise DataError(
            f"data.root is '{shown}', which {wrong}. A folder of class folders, or a .csv or .parquet manifest was"
            " expected. Set data.root in params.yaml."
        )
    return _list_folders(root, shown, layout)


def _list_folders(root: Path, shown: str, layout: str) -> Listing:
    found, stray, images = [], [], []
    for path in _files_below(root):
        if said := _is_no_image(path):
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
            stray.append(Aside(path, f"not an image file: '{PurePosixPath(path).suffix or name}'"))
        else:
            found.append(Found(path, *place))
    if not found:
        raise _no_image(shown, reading, stray)
    return Listing(reading.form, root, found, stray)


def _no_image(shown: str, reading: Reading, stray: list[Aside]) -> NoImageError:
    tells = next((f" {each.path}: {each.reason}." for each in stray if not_read(each.path)), "")
    levels = "/".join(f"<{level}>" for level in reading.levels)
    way_out = " Set data.layout to 'class' if these folders are the classes." if reading.splits else ""
    return NoImageError(
        f"data.root is '{shown}', which holds no image in a class folder ({len(stray)} other files).{tells}"
        f" {levels}/<image> was expected, ending in {', '.join(EXTENSIONS)}. Set data.root in params.yaml.{way_out}",
        stray,
    )


def _list_manifest(path: Path, shown: str) -> Listing:
    try:
        data = io.BytesIO(path.read_bytes())
        table = pl.read_csv(data, infer_schema=False) if path.suffix.lower() == ".csv" else pl.read_parquet(data)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"data.root is '{shown}', which cannot be read as {path.suffix[1:]} ({str(error).splitlines()[0]})."
            " Correct the file, or set data.root in params.yaml."
        ) from None
    table = table.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines
    absent = [name for name in _COLUMNS[:2] if name not in table.columns]
    if absent:
        raise DataError(
            f"data.root is '{shown}', which lacks {len(absent)} columns ({', '.join(absent)}); it has"
            f" {', '.join(table.columns) or 'none'}. path, label, and optionally split and group were expected."
            f"{did_you_mean(absent[0], table.columns)} Rename them in the manifest."
        )
    kinds = table.schema.items()
    others = [name for name, kind in kinds if name not in _COLUMNS and not kind.is_nested() and kind != pl.Binary]
    table = table.select(pl.col(name).cast(pl.String) for name in (*_COLUMNS, *others) if name in table.columns)
    for name in ("path", "label"):
        if n_empty := table.filter(pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")).height:
            raise DataError(
                f"{n_empty} rows of '{shown}' have no {name}. One in every row was expected. Correct the manifest."
            )
    for name in ("split", "group"):
        if name in table.columns and 0 < (n_empty := table[name].null_count()) < table.height:
            raise DataError(
                f"{n_empty} of {table.height} rows of '{shown}' have no {name}. A value in all rows or in none was"
                " expected. Fill the column, or remove it."
            )
    if "split" in table.columns and (other := sorted(set(table["split"].drop_nulls()) - set(SPLIT_NAMES))):
        raise DataError(
            f"the column split of '{shown}' holds {len(other)} unknown names ({count_and_name(other)})."
            " train, val and test were expected. Correct the manifest."
        )
    repeated = table.filter(pl.col("path").is_duplicated())["path"].unique(maintain_order=True).to_list()
    if repeated:
        raise DataError(
            f"'{shown}' names {len(repeated)} paths more than once ({count_and_name(repeated)})."
            " One row per image was expected. Remove the others."
        )
    folder = path.parent
    rows = table.to_dicts()
    files = {row["path"]: located(row["path"], folder) for row in rows}
    # `look` reports URLs that cannot be read: a check here would take as long as reading them.
    if absent := [name for name, file in files.items() if is_local(file) and not file.is_file()]:
        raise DataError(
            f"{len(absent)} of {len(rows)} paths in '{shown}' do not exist ({count_and_name(absent)}). Paths relative"
            f" to the manifest's folder, absolute ones, or URLs were expected. Correct the manifest."
        )
    if not rows:
        raise DataError(f"'{shown}' has no rows. One row per image was expected. Set data.root in params.yaml.")
    found = [Found(row["path"], row["label"], row.get("split"), row.get("group"), _filled(row, others)) for row in rows]
    given = " and ".join(name for name in ("split", "group") if name in table.columns)
    return Listing("manifest" + (f" with {given}" if given else ""), folder, found, [])


def _filled(row: dict[str, str | None], columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value.strip()) for name in columns if (value := row[name]) and value.strip())


def _is_no_image(path: str) -> str | None:
    """Return why nobody takes this file for an image: what systems and tools leave behind, and documents."""
    parts = path.split("/")
    suffix = PurePosixPath(parts[-1]).suffix.lower()
    if hidden := next((part for part in parts if _is_hidden(part)), None):
        return f"hidden: '{hidden}'"
    is_document = suffix in _DOCUMENTS or (not suffix and parts[-1].lower() in _DOCUMENT_NAMES)
    return f"no image: '{suffix or parts[-1]}'" if is_document else None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def _files_below(root: Path) -> list[str]:
    if not is_local(root):
        remote = cast("UPath", root)
        return sorted(PurePosixPath(each).relative_to(remote.path).as_posix() for each in remote.fs.find(remote.path))
    found = []
    for folder, _, names in os.walk(root, followlinks=True):
        inside = Path(folder).relative_to(root).as_posix()
        found += names if inside == "." else [f"{inside}/{name}" for name in names]
    return sorted(found)
