"""Decode every image once and resize it with the graph that ships.

Reads the splits, the images and resize.onnx; writes the store artifacts/pixels, uint8 [S, S, 3] per image. A row
depends only on the image's bytes, the decoder and resize.onnx. With `transform.keep_pixels: false` the same function
runs whenever pixels are read, and the stage only writes a note of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.base import dataset
from headstart.base.progress import bar, say, show_image, warn
from headstart.embedding import pixels
from headstart.embedding.contact_sheet import contact_sheet
from headstart.store import arrays
from headstart.store.workers import workers

if TYPE_CHECKING:
    from headstart.base.dataset import Dataset
    from headstart.embedding.pixels import Source
    from headstart.layout import Layout
    from headstart.params import Params

_SHEET = (12, 8)  # classes, and images of each


def run(params: Params, layout: Layout) -> None:
    """Add the missing images of the splits to the pixel store, and remove other images."""
    data = dataset.read(layout)
    resizing = pixels.resizing(layout)
    if not params.transform.keep_pixels:
        pixels.write_note(layout, resizing)
        say("transform.keep_pixels is false: images are decoded and resized whenever they are needed")
        _show(data, resizing)
        return
    images = data.of(*dataset.SPLITS).where
    contract = pixels.contract(resizing)
    with bar("transforming", len(images), "image") as advance, workers(params.cluster.address) as pool:
        n_computed = arrays.build(layout.pixels, images, contract, resizing.on_every_core, pool, advance, warn)
    say(f"{n_computed} images computed, {len(images) - n_computed} were there")
    _show(data, pixels.opened(layout))


def _show(data: Dataset, source: Source) -> None:
    n_classes, n_images = _SHEET

    def draw() -> bytes:
        images = data.of(*dataset.SPLITS)
        some = enumerate(data.classes[:n_classes])
        return contact_sheet({name: source(images.of_class(label)[:n_images].where) for label, name in some})

    show_image("contact-sheet", draw, f"Up to {n_images} images of up to {n_classes} classes, as the network sees them")
