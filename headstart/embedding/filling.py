"""Fill the stores of pixels and features with what they lack: for images with labels and for images without, alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from headstart.base import disk
from headstart.base.progress import bar, say, warn
from headstart.embedding import pixels
from headstart.embedding.pixels import Resizing
from headstart.store import arrays
from headstart.store.row_cache import RowCache
from headstart.store.workers import workers

if TYPE_CHECKING:
    import numpy as np

    from headstart.base.files import Place
    from headstart.embedding.compute import Embedding
    from headstart.layout import Layout
    from headstart.store.shards import Contract
    from headstart.store.workers import Workers


def fill_pixels(layout: Layout, images: Mapping[str, str], making: Resizing, address: str | None, keeps: bool) -> None:
    """Compute the pixels that are not there, for image_id -> where its bytes are, and write artifacts/pixels of them.

    `address`: of a Dask scheduler; None: on this machine. `keeps` False: they are made wherever they are read.
    """
    rows = pixels.Cached(making, layout.cache).rows()
    refusal = rows.refusal(len(images)) if keeps and layout.store is None else ""
    if not keeps:
        say("transform.keep_pixels is false: images are decoded and resized whenever they are needed")
    elif refusal:
        warn(f"pixels are not kept, and images are decoded and resized whenever they are needed: {refusal}")
    else:
        with bar("transforming", len(images), "image") as advance, workers(address) as pool:
            if layout.store is None:
                n_computed = rows.fill(images, making.on_every_core, pool, advance, warn)
            else:
                n_computed = arrays.build(
                    layout.pixels, images, rows.contract, making.on_every_core, pool, advance, warn
                )
        say(f"{n_computed} images computed, {len(images) - n_computed} reused")
    if layout.store is None or not keeps:
        pixels.write_note(layout, making, images, keeps)
    pixels.write_decoding(layout, making)


def fill_features(
    layout: Layout, place: Place, images: Mapping[str, str], contract: Contract, computing: Embedding, pool: Workers
) -> None:
    """Compute the features that are not there, and write the store at `place`."""
    what = "embedding views" if computing.views else "embedding"
    with bar(what, len(images), "image") as advance:
        if layout.store is None:
            n_computed = _from_cache(layout, place, images, contract, computing, pool, advance)
        else:
            n_computed = arrays.build(place, images, contract, computing, pool, advance, warn)
    say(f"{n_computed} images computed, {len(images) - n_computed} reused")


def _from_cache(
    layout: Layout,
    place: Place,
    wanted: Mapping[str, str],
    contract: Contract,
    computing: Embedding,
    pool: Workers,
    advance: arrays.Advance,
) -> int:
    """Compute what the cache lacks and write the store from it; return the number of rows computed."""
    rows = RowCache(layout.cache, "views" if computing.views else "features", contract)
    if refusal := rows.refusal(len(wanted)):
        warn(f"features are not kept in the cache: {refusal}")
        return arrays.build(place, wanted, contract, computing, pool, advance, warn)
    disk.check_room(place.shards, len(wanted) * contract.row_bytes - _n_bytes(place), "the features")
    n_computed = rows.fill(wanted, computing, pool, advance, warn)

    def read(some: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        return rows.read(some, lambda lost: computing(lost, advance))

    with workers(None) as here:
        arrays.build(place, wanted, contract, read, here)
    return n_computed


def _n_bytes(place: Place) -> int:
    """Return how much the shards take that are there already, and are replaced one by one."""
    return sum(path.stat().st_size for path in place.shards.glob("*")) if place.shards.is_dir() else 0
