"""Find the labelled files under data.root, which has one of three forms, and all other files that lie there."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

import polars as pl

from headstart.base.errors import DataError, count_and_name, did_you_mean
from headstart.base.files import is_local, located
from headstart.base.tables import SPLIT_NAMES
from headstart.base.validation import Aside
from headstart.images import EXTENSIONS, not_read

if TYPE_CHECKING:
    from upath import UPath

_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
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
    """A file, with the label, split and group that its path or the manifest gives."""

    path: str  # relative to the data's folder, separated by /
    label: str
    given_split: str | None
    group: str | None


@dataclass(frozen=True)
class Listing:
    """The form of data.root, and its files."""

    form: str  # in words, for the log and the report
    folder: Path  # to which paths are relative
    found: list[Found]
    stray: list[Aside]  # all other files below the folder


def list_images(root: Path, shown: str) -> Listing:
    """List the files of `root`, which has one of three forms; DataError if it has none. Messages name it `shown`."""
    if root.is_file() and root.suffix.lower() in (".csv", ".parquet"):
        return _list_manifest(root, shown)
    if not root.is_dir():
        wrong = "is a file of another kind" if root.exists() else "does not exist"
        raise DataError(
            f"data.root is '{shown}', which {wrong}. A folder of class folders, or a .csv or .parquet manifest was"
            " expected. Set data.root in params.yaml."
        )
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not _is_hidden(path.name))
    if "train" in folders and (odd := sorted(set(folders) & set(_SPLIT_ALIASES))):
        raise DataError(
            f"data.root is '{shown}', which holds train and {count_and_name(odd)}. train, val and test were"
            f" expected. Rename {odd[0]} to {_SPLIT_ALIASES[odd[0]]}."
        )
    if folders == ["train"] or ("train" in folders and {"val", "test"} & set(folders)):
        splits = [name for name in SPLIT_NAMES if name in folders]
        return _list_folders(root, shown, f"pre-split class folders ({', '.join(splits)})", splits)
    return _list_folders(root, shown, "class folders", [])


def _list_folders(root: Path, shown: str, form: str, splits: list[str]) -> Listing:
    depth = 2 if splits else 1
    found, stray = [], []
    for path in _files_below(root):
        parts = PurePosixPath(path).parts
        if said := _is_no_image(path):
            stray.append(Aside(path, said, counted=False))
        elif said := not_read(path):
            stray.append(Aside(path, said))
        elif splits and parts[0] not in splits and len(parts) > 1:
            stray.append(Aside(path, f"not below {', '.join(splits)}"))
        elif len(parts) <= depth:
            stray.append(Aside(path, "not in a class folder"))
        elif not path.lower().endswith(EXTENSIONS):
            stray.append(Aside(path, f"not an image file: '{PurePosixPath(path).suffix or parts[-1]}'"))
        else:
            found.append(Found(path, parts[depth - 1], parts[0] if splits else None, None))
    if not found:
        tells = next((f" {each.path}: {each.reason}." for each in stray if not_read(each.path)), "")
        raise NoImageError(
            f"data.root is '{shown}', which holds no image in a class folder ({len(stray)} other files).{tells}"
            f" <class>/<image> was expected, ending in {', '.join(EXTENSIONS)}. Set data.root in params.yaml.",
            stray,
        )
    return Listing(form, root, found, stray)


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
    table = table.select(pl.col(name).cast(pl.String) for name in _COLUMNS if name in table.columns)
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
    found = [Found(row["path"], row["label"], row.get("split"), row.get("group")) for row in rows]
    given = " and ".join(name for name in ("split", "group") if name in table.columns)
    return Listing("manifest" + (f" with {given}" if given else ""), folder, found, [])


def _is_no_image(path: str) -> str | None:
    """Return why nobody takes this file for an image: what systems and tools leave behind, and documents."""
    parts, suffix = PurePosixPath(path).parts, PurePosixPath(path).suffix.lower()
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
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)
