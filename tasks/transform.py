"""Decode every image once and resize it with the graph that ships.

Reads the splits, the images, resize.onnx, and how many of 16 bits the data use; fills the cache of this machine with
the images' pixels, uint8 [S, S, 3], and writes artifacts/pixels, a record of which they are. A row depends only on the
image's bytes, the decoder with those bits, and resize.onnx. Where rows are missing in the cache, the same function runs
whenever pixels are read; with `transform.keep_pixels: false` it always does. With `cluster.store`, the rows are a store
there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.base import dataset
from headstart.base.progress import show_image
from headstart.base.validation import ValidationSummary
from headstart.embedding import pixels
from headstart.embedding.contact_sheet import contact_sheet
from headstart.embedding.filling import fill_pixels
from headstart.images.deep import ALL_BITS

if TYPE_CHECKING:
    from headstart.base.dataset import Dataset
    from headstart.embedding.pixels import Source
    from headstart.layout import Layout
    from headstart.params import Params

_SHEET = (12, 8)  # classes, and images of each


def run(params: Params, layout: Layout) -> None:
    """Compute the pixels that the splits need and that are not there."""
    data = dataset.read(layout)
    resizing = pixels.planned(layout, ValidationSummary.of(layout).bits or ALL_BITS)
    images = data.of(*dataset.SPLITS).where
    fill_pixels(layout, images, resizing, params.cluster.address, params.transform.keep_pixels)
    _show(data, pixels.opened(layout))


def _show(data: Dataset, source: Source) -> None:
    n_classes, n_images = _SHEET

    def draw() -> bytes:
        images = data.of(*dataset.SPLITS)
        some = enumerate(data.classes[:n_classes])
        return contact_sheet({name: source(images.of_class(label)[:n_images].where) for label, name in some})

    show_image("contact-sheet", draw, f"Up to {n_images} images of up to {n_classes} classes, as the network sees them")
