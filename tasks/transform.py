"""Decode every image once and resize it with the graph that ships.

Reads the splits, the images and resize.onnx; writes the store artifacts/pixels, uint8 [S, S, 3] an image. A row follows
from the image's bytes, the decoder and resize.onnx alone. With `transform.keep_pixels: false` the same function runs
where pixels are read, and only a record of what it is gets written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from headstart.base import tables
from headstart.base.files import replacing_folder, write_json
from headstart.base.progress import bar, say, show_image, warn
from headstart.embedding import contact_sheet, pixels
from headstart.store import arrays
from headstart.store.workers import workers

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_SHEET = (12, 8)  # classes, and images of each


def run(params: Params, layout: Layout) -> None:
    """Bring the pixel store up to the splits."""
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    images = dict(splits.select("image_id", "path").iter_rows())
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    made_by = pixels.contract(resizing)
    if not params.transform.keep_pixels:
        with replacing_folder(layout.pixels) as folder:
            write_json(folder / arrays.MANIFEST, {"fingerprint": made_by.fingerprint, pixels.KEPT: False})
        say("transform.keep_pixels is false: images are decoded and resized wherever they are needed")
        _show(splits, resizing)
        return
    with bar("transforming", len(images), "image") as advance, workers(params.cluster.address) as pool:
        shards = layout.shards(layout.pixels, params.cluster.store)
        n_computed = arrays.build(layout.pixels, images, made_by, resizing.on_every_core, pool, advance, warn, shards)
    say(f"{n_computed} images computed, {len(images) - n_computed} were there")
    _show(splits, pixels.source(layout.pixels, shards, resizing))


def _show(splits: pl.DataFrame, source: pixels.Source) -> None:
    n_classes, n_images = _SHEET

    def draw() -> bytes:
        rows: dict[str, np.ndarray] = {}
        for label in splits["label"].unique().sort()[:n_classes]:
            images = splits.filter(pl.col("label") == label).sort("image_id").head(n_images)
            rows[label] = source(dict(images.select("image_id", "path").iter_rows()))
        return contact_sheet.contact_sheet(rows)

    show_image("contact-sheet", draw, f"Up to {n_images} images of up to {n_classes} classes, as the network sees them")
