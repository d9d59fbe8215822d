"""Decode every image once and resize it with the graph that ships.

Reads the splits, the images and resize.onnx; writes the store artifacts/pixels, uint8 [S, S, 3] an image. A row follows
from the image's bytes, the decoder and resize.onnx alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

from headstart import graphs, images, store, tables
from headstart.files import read_json, sha256_of
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import bar, say, warn


@contextmanager
def resizing(
    resize_onnx: Path, paths: dict[str, Path], advance: Callable[[int], None]
) -> Iterator[Callable[[Sequence[str]], np.ndarray]]:
    """Yield a function from image_ids to uint8 [N, S, S, 3]; images are read, decoded and resized on every core."""
    session = graphs.session(resize_onnx, threads=1)  # the pool below is the parallelism

    def pixels_of(image_id: str) -> np.ndarray:
        image = images.decode(images.read_unchanged(paths[image_id], image_id)).rgb
        pixels: np.ndarray = session.run(None, {"image": image[None]})[0][0]
        advance(1)
        return pixels

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield lambda image_ids: np.stack(list(pool.map(pixels_of, image_ids)))


def contract(resize_onnx: Path, resize_px: int) -> store.Contract:
    """Return what computes a row of pixels."""
    made_by = store.fingerprint(
        resize=sha256_of(resize_onnx), decoder=sha256_of(Path(images.__file__)), pillow=version("pillow")
    )
    return store.Contract(made_by, (resize_px, resize_px, 3), "uint8")


def run(params: Params, layout: Layout) -> None:
    """Bring the pixel store up to the splits."""
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    resize_px = read_json(layout.backbone / "backbone.json", "backbone")["preprocessing"]["resize_px"]
    resize_onnx = layout.backbone / "resize.onnx"
    folder = layout.images_folder(params.data.root)
    paths = {image_id: folder / path for image_id, path in splits.select("image_id", "path").iter_rows()}
    with bar("transforming", len(paths), "image") as advance, resizing(resize_onnx, paths, advance) as compute:
        n_computed = store.build(layout.pixels, paths, contract(resize_onnx, resize_px), compute, advance, warn)
    say(f"{n_computed} images computed, {len(paths) - n_computed} were there")
