"""Find every labelled image under data.root, decode each, and record which can be used and which cannot.

Reads data.root; writes artifacts/manifest.parquet and artifacts/validation/. Every file found is either in the manifest
or in the quarantine: none is dropped silently, and none is converted.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, cast

import polars as pl

from headstart.base import tables, validation
from headstart.base.cores import n_cores
from headstart.base.errors import DataError, count_and_name, did_you_mean
from headstart.base.files import is_local, located
from headstart.base.progress import bar, say, warn
from headstart.base.tables import SPLIT_NAMES
from headstart.base.validation import ValidationSummary
from headstart.images import EXTENSIONS, UnreadableError, decode

if TYPE_CHECKING:
    from upath import UPath

    from headstart.layout import Layout
    from headstart.params import Params

_HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2, None: 3}
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}
_COLUMNS = ("path", "label", "split", "group")


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
    stray: list[tuple[str, str]]  # path, reason


class Looked(NamedTuple):
    """The contents of a file; `reason` is set if it cannot be used."""

    found: Found
    image_id: str
    format: str
    width_px: int
    height_px: int
    n_bytes: int
    reason: str | None


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
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
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
        if any(part.startswith(".") for part in parts):
            stray.append((path, "hidden file"))
        elif splits and parts[0] not in splits and len(parts) > 1:
            stray.append((path, f"not below {', '.join(splits)}"))
        elif len(parts) <= depth:
            stray.append((path, "not in a class folder"))
        elif not path.lower().endswith(EXTENSIONS):
            stray.append((path, f"not an image file: '{PurePosixPath(path).suffix or parts[-1]}'"))
        else:
            found.append(Found(path, parts[depth - 1], parts[0] if splits else None, None))
    if not found:
        raise DataError(
            f"data.root is '{shown}', which holds no image in a class folder ({len(stray)} other files)."
            f" <class>/<image> was expected, ending in {', '.join(EXTENSIONS)}. Set data.root in params.yaml."
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


def _files_below(root: Path) -> list[str]:
    if not is_local(root):
        remote = cast("UPath", root)
        return sorted(PurePosixPath(each).relative_to(remote.path).as_posix() for each in remote.fs.find(remote.path))
    found = []
    for folder, _, names in os.walk(root, followlinks=True):
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def look(folder: Path, found: Found) -> Looked:
    """Read and decode one file."""
    try:
        data = located(found.path, folder).read_bytes()
    except Exception as error:  # OSError, or anything that the file system of a URL raises
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        return Looked(found, "", "", 0, 0, 0, f"cannot be read: {said}"[:200])
    image_id = hashlib.sha256(data).hexdigest()
    try:
        image = decode(data)
    except UnreadableError as reason:
        return Looked(found, image_id, "", 0, 0, len(data), str(reason))
    height_px, width_px = image.rgb.shape[:2]
    return Looked(found, image_id, image.format, width_px, height_px, len(data), None)


def set_duplicates_aside(looked: Iterable[Looked]) -> list[Looked]:
    """Return the same files, with `reason` set on copies of the same bytes.

    Under several labels, it is set on all copies, since the right label is unknown. Under one label, one copy stays:
    the held-out one (test, then val, then train), so that no test image is trained on; within a split the first path.
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
            outcome += [copies[0], *(item._replace(reason=f"the same bytes as {kept}") for item in copies[1:])]
    return sorted(outcome, key=lambda item: item.found.path)


def manifest_of(usable: list[Looked]) -> pl.DataFrame:
    """Return the manifest, `tables.MANIFEST`, sorted by image_id."""
    rows = sorted(usable, key=lambda item: item.image_id)
    return pl.DataFrame(
        {
            "image_id": [item.image_id for item in rows],
            "path": [item.found.path for item in rows],
            "label": [item.found.label for item in rows],
            "group": [item.found.group or item.image_id for item in rows],
            "given_split": [item.found.given_split for item in rows],
            "format": [item.format for item in rows],
            "width_px": [item.width_px for item in rows],
            "height_px": [item.height_px for item in rows],
            "n_bytes": [item.n_bytes for item in rows],
        },
        schema_overrides={"given_split": pl.String, "width_px": pl.Int32, "height_px": pl.Int32},
    )


def check_usable(usable: list[Looked], quarantined: list[tuple[str, str]], max_fraction: float, shown: str) -> None:
    """Raise DataError if too many files are quarantined, or if the rest cannot train a classifier."""
    n_files = len(usable) + len(quarantined)
    listed = count_and_name(f"{path}: {reason}" for path, reason in quarantined)
    if len(quarantined) > max_fraction * n_files:
        raise DataError(
            f"{len(quarantined)} of {n_files} files in '{shown}' cannot be used ({listed}). At most"
            f" {max_fraction:.0%} was expected. Replace or remove them, or raise validate.max_quarantined_fraction in"
            " params.yaml."
        )
    per_label = Counter(item.found.label for item in usable)
    if len(per_label) < 2:
        raise DataError(
            f"'{shown}' holds usable images of {len(per_label)} class ({count_and_name(sorted(per_label)) or 'none'})."
            " Two or more classes were expected, one folder (or label) each. Add images of another class."
        )
    if single := sorted(label for label, n_images in per_label.items() if n_images == 1):
        raise DataError(
            f"{len(single)} classes in '{shown}' have a single usable image ({count_and_name(single)}). Three or more"
            " were expected, one for each of train, val and test. Add images, or remove the class."
        )


def run(params: Params, layout: Layout) -> None:
    """Find, decode and check the images, and write the results; nothing is written unless the checks pass."""
    shown = params.data.root
    listing = list_images(layout.data_root, shown)
    say(f"'{shown}' is read as {listing.form}: {len(listing.found)} image files")
    with bar("checking", len(listing.found), "image") as advance, ThreadPoolExecutor(n_cores()) as pool:
        looked = []
        for item in pool.map(lambda found: look(listing.folder, found), listing.found):
            looked.append(item)
            advance(1)
    looked = set_duplicates_aside(looked)
    usable = [item for item in looked if item.reason is None]
    quarantined = sorted([*listing.stray, *((item.found.path, item.reason) for item in looked if item.reason)])
    check_usable(usable, quarantined, params.validate_.max_quarantined_fraction, shown)
    manifest = tables.check(manifest_of(usable), tables.MANIFEST)
    summary = ValidationSummary(
        form=listing.form,
        n_files=len(usable) + len(quarantined),
        n_images=len(usable),
        n_quarantined=len(quarantined),
        n_classes=manifest["label"].n_unique(),
        n_groups=manifest["group"].n_unique(),
        images_per_class=dict(sorted(Counter(manifest["label"]).items())),
        formats=dict(sorted(Counter(manifest["format"]).items())),
        data_sha256=tables.data_digest(manifest),
    )
    validation.write(layout.validation, summary, quarantined)
    tables.write(layout.manifest, manifest, tables.MANIFEST)
    say(f"{len(usable)} images of {summary.n_classes} classes can be used")
    if quarantined:
        warn(
            f"{len(quarantined)} files are set aside ({count_and_name(path for path, _ in quarantined)}), listed with"
            " their reasons in artifacts/validation/quarantine.csv"
        )
