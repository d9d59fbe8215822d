"""`headstart describe`: the images of the last run as a dataset that other tools can read, by Croissant 1.1.

It is no stage: mlcroissant, the extra `describe`, brings pandas and rdflib, which the pipeline has no use for.
"""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import params_file
from headstart.base import licences, tables
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import sha256_of, write_json
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout, find_root

if TYPE_CHECKING:
    import polars as pl

_CROISSANT, _IMAGES, _RECORDS = "croissant.json", "images.json", "images"
_VERSION = "http://mlcommons.org/croissant/1.1"
_RECOMMENDED = re.compile(r'(\w+)" is recommended')
_COLUMNS = {
    "image_id": "SHA-256 of the file's bytes",
    "path": "of the file, relative to the folder of the images",
    "label": "the class",
    "group": "images that belong together; image_id where they do not",
    "split": "train, val or test, as the pipeline used the image",
    "format": "of the file, as Pillow names it",
    "width_px": "of the upright image",
    "height_px": "of the upright image",
    "n_bytes": "of the file",
}


def describe(options: argparse.Namespace) -> int:
    """Write croissant.json and images.json, which it describes, to a folder; CheckError if `validate` has not run."""
    try:
        import mlcroissant
    except ImportError as error:
        raise CheckError(
            f"{error.name} is not installed. Run `pip install 'headstart[describe]'`, or `make setup EXTRAS=describe`."
        ) from None
    logging.getLogger("absl").setLevel(logging.ERROR)  # what lacks is printed below, shorter
    licence = _licence(options.licence)
    root = find_root(Path.cwd())
    params = params_file.load(root / "params.yaml")
    layout = Layout.of(root, params)
    summary = ValidationSummary.of(layout)
    images = _images(layout)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_json(options.folder / _IMAGES, images.to_dicts())  # in CSV, "007" and "None" would be no labels
    name = layout.data_root.stem
    said = _dataset(mlcroissant, images, options.folder / _IMAGES, summary, name, licence, options.url)
    write_json(options.folder / _CROISSANT, said)
    dataset = mlcroissant.Dataset(jsonld=options.folder / _CROISSANT)  # raises where it breaks Croissant's rules
    print(f"describe: {options.folder / _CROISSANT} describes the {images.height} images of {params.data.root}")
    if lacking := sorted(_RECOMMENDED.findall("\n".join(dataset.metadata.ctx.issues.warnings))):
        print(f"describe: Croissant recommends {', '.join(lacking)} too; no stage knows them. Add them to the file.")
    return 0


def _images(layout: Layout) -> pl.DataFrame:
    """Return one row an image, sorted by path: what the manifest says of it, and its split."""
    manifest = tables.read(layout.manifest, tables.MANIFEST, "validate")
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    joined = manifest.join(splits.select("image_id", "split"), on="image_id", validate="1:1")
    return joined.select(*_COLUMNS).sort("path")


def _dataset(
    mlc: Any,
    images: pl.DataFrame,
    file: Path,
    summary: ValidationSummary,
    name: str,
    licence: str | None,
    url: str | None,
) -> dict[str, Any]:
    """Return what Croissant says of the dataset. Nothing in it follows from when it was written."""
    context = mlc.Context(conforms_to=_VERSION)
    fields = [
        mlc.Field(
            ctx=context,
            id=f"{_RECORDS}/{column}",
            name=column,
            description=words,
            data_types=[mlc.DataType.INTEGER if images[column].dtype.is_integer() else mlc.DataType.TEXT],
            source=mlc.Source(
                ctx=context, file_object=_IMAGES, extract=mlc.Extract(ctx=context, json_path=f"$[*].{column}")
            ),
        )
        for column, words in _COLUMNS.items()
    ]
    table = mlc.FileObject(
        ctx=context,
        id=_IMAGES,
        name=_IMAGES,
        description="One object an image.",
        content_url=_IMAGES,
        content_size=f"{file.stat().st_size} B",
        encoding_formats=["application/json"],
        sha256=sha256_of(file),
    )
    records = mlc.RecordSet(
        ctx=context,
        id=_RECORDS,
        name=_RECORDS,
        key=[f"{_RECORDS}/image_id"],
        fields=fields,
    )
    classes = len(summary.images_per_class)
    metadata = mlc.Metadata(
        ctx=context,
        name=name,
        description=f"{images.height} labelled images of {classes} classes, read as {summary.form}.",
        license=[licence] if licence else None,
        url=url,
        distribution=[table],
        record_sets=[records],
        version=f"1.0.0+{summary.data_sha256[:12]}",
    )
    return metadata.to_json()  # type: ignore[no-any-return]


def _licence(given: str | None) -> str | None:
    """Return the address of the licence of the images; ParamError if SPDX does not list it."""
    if given is None:
        return None
    try:
        return f"https://spdx.org/licenses/{licences.canonical(given)}.html"
    except ValueError:
        raise ParamError(f"'{given}' is no SPDX identifier. One such as CC-BY-4.0 was expected.") from None
