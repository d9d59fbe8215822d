"""labelled.csv: all labelled images of a project as a manifest, with those that were labelled just now.

Images that a rule has chosen are no sample of what the model will meet. So they are for training alone: the manifest
names the split of every image, that of the last run, and `train` for the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from headstart.base import dataset, tables, unlabelled, validation
from headstart.base.dataset import TRAIN
from headstart.base.files import is_local, located, write_csv

if TYPE_CHECKING:
    from headstart.layout import Layout

_FILE = "labelled.csv"


class Written(NamedTuple):
    """What was written."""

    file: Path
    n_new: int
    n_images: int
    leads_out: bool  # whether a path is outside the project, which takes data.allow_outside
    n_elsewhere: int  # labels of images that neither the last run nor data.unlabelled has, which are left out


def write(layout: Layout, labels: Mapping[str, str]) -> Written:
    """Write the labelled images of the last run and these, image_id -> label, to labelled.csv in the project.

    Labels of images that are not there are counted. Without a new one, nothing is written.
    """
    images = unlabelled.read(layout)
    new = [(each, path, labels[each]) for each, path in images.where.items() if each in labels]
    known = dataset.read(layout).table  # labels of an earlier round are among them
    n_elsewhere = len(set(labels) - set(images.image_ids) - set(known["image_id"]))
    file = layout.root / _FILE
    if not new:
        return Written(file, 0, len(known), False, n_elsewhere)
    manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
    table = known.select(
        pl.col("path").map_elements(lambda path: _from(layout.root, layout.images, path), pl.String),
        "label",
        "split",
        "group",
    )
    for name, values in _slices(layout, known["image_id"]).items():
        table = table.with_columns(values.alias(name))
    folder = layout.of_unlabelled().images
    rows = {
        "path": [_from(layout.root, folder, path) for _, path, _ in new],
        "label": [label for _, _, label in new],
        "split": [TRAIN] * len(new),
        "group": [image_id for image_id, _, _ in new],
    }
    table = pl.concat([table, pl.DataFrame(rows)], how="diagonal")
    if (manifest["group"] == manifest["image_id"]).all():
        table = table.drop("group")
    write_csv(file, table)
    leads_out = any(path.startswith(("/", "..")) or "://" in path for path in table["path"])
    return Written(file, len(new), len(table), leads_out, n_elsewhere)


def _slices(layout: Layout, image_ids: pl.Series) -> dict[str, pl.Series]:
    """Return slice -> its value of each image, such as camera -> front; null where there is none."""
    told = validation.slices(layout)
    found = {}
    for name in told["slice"].unique().sort():
        value_of = dict(told.filter(pl.col("slice") == name).select("image_id", "value").iter_rows())
        found[str(name)] = pl.Series([value_of.get(each) for each in image_ids], dtype=pl.String)
    return found


def _from(root: Path, folder: Path, path: str) -> str:
    """Return the path of an image from the project, absolute where it lies elsewhere; a URL as it is."""
    place = located(path, folder)
    if not is_local(place):
        return str(place)
    absolute = place.absolute()
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()
