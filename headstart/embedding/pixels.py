"""An image's pixels, uint8 [S, S, 3], by resize.onnx: from the cache or a shared store, or made where they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict

from headstart.base.cores import n_cores
from headstart.base.errors import CheckError
from headstart.base.files import Place, located, replacing_folder, sha256_of
from headstart.base.records import Record
from headstart.images import decoding, deep
from headstart.images.headers import examined
from headstart.images.limited import Pixels
from headstart.onnx import backbone_folder, runtime
from headstart.store import arrays
from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract, fingerprint

if TYPE_CHECKING:
    import onnxruntime

    from headstart.layout import Layout

_DECODING = "decoding.json"
_room = Pixels(decoding.MAX_PIXELS)  # of this process: the images of all its threads, however many these are

Source = Callable[[Mapping[str, str]], np.ndarray]  # image_id -> where its bytes are; uint8 [N, S, S, 3] in that order


class Note(Record):
    """What the stage `transform` writes: which pixels belong to the splits, and whether they are kept."""

    model_config = ConfigDict(extra="ignore")  # with a shared store, it is the manifest of that

    fingerprint: str
    kept: bool = True  # False: they are made wherever they are read
    n_rows: int
    images_sha256: str | None = None  # over their sorted ids


class Decoding(Record):
    """How the bytes of files become the 8 bits of pixels: decoding.json, beside the manifest."""

    bits: int  # that the values of files with 16 bits a channel have


@dataclass(frozen=True)
class Resizing:
    """Images decoded and resized: a `Source`, and by `on_every_core` what a pixel store is built with."""

    graph: bytes  # resize.onnx
    size_px: int
    folder: Path  # that the images' paths are relative to
    bits: int = deep.ALL_BITS  # that the values of files with 16 bits a channel have

    def __call__(self, wanted: Mapping[str, str]) -> np.ndarray:
        """Return uint8 [N, S, S, 3], one image after another; DataError where a file is not what was validated."""
        return np.stack([self._row(*item) for item in wanted.items()])

    def on_every_core(self, wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        """Return the same, made in parallel."""
        values = np.empty((len(wanted), self.size_px, self.size_px, 3), np.uint8)

        def make(row: int, image_id: str, where: str) -> None:
            values[row] = self._row(image_id, where)
            advance(1)

        list(threads(n_cores()).map(make, range(len(wanted)), wanted.keys(), wanted.values()))
        return values

    def _row(self, image_id: str, where: str) -> np.ndarray:
        data = decoding.read_unchanged(located(where, self.folder), image_id)
        with _room.taken(examined(data).n_pixels or decoding.MAX_PIXELS):
            rgb = decoding.decode(data, self.bits).rgb
            row: np.ndarray = _session(self.graph).run(None, {"image": rgb[None]})[0][0]
        return row


@dataclass(frozen=True)
class Cached:
    """Rows in the cache of this machine; those that are not there are made: a `Source`."""

    making: Resizing
    cache: Cache

    def __call__(self, wanted: Mapping[str, str]) -> np.ndarray:
        """Return uint8 [N, S, S, 3]; DataError where a file has to be read and is not what was validated."""
        return self.rows().read(wanted, self.making)

    def rows(self) -> RowCache:
        """Return the cache of these rows, opened once a process."""
        return _cached(self)


@dataclass(frozen=True)
class Kept:
    """Rows of a finished store that several machines share: a `Source`."""

    folder: Path
    shards: Path
    manifest_sha256: str  # so that a process that has the store open notices another

    def __call__(self, wanted: Mapping[str, str]) -> np.ndarray:
        """Return uint8 [N, S, S, 3]; CheckError where the store is damaged or lacks an image."""
        return _opened(self).read(list(wanted))


def planned(layout: Layout, bits: int) -> Resizing:
    """Return the `Resizing` of the project's images, by the resize.onnx of the stage `backbone`."""
    graph = backbone_folder.piece(layout.backbone, backbone_folder.RESIZE).read_bytes()
    return Resizing(graph, backbone_folder.read(layout.backbone).preprocessing.resize_px, layout.images, bits)


def resizing(layout: Layout) -> Resizing:
    """Return the same as the stage `transform` planned it."""
    return planned(layout, Decoding.read(layout.pixels.folder / _DECODING, "transform").bits)


def write_decoding(layout: Layout, making: Resizing) -> None:
    """Write what `resizing` reads."""
    Decoding(bits=making.bits).write(layout.pixels.folder / _DECODING)


def contract(making: Resizing) -> Contract:
    """Return everything that a row's bytes follow from, except the image."""
    fingerprinted = fingerprint(resize=making.graph.hex(), decoder=decoding.decoder(making.bits))
    return Contract(fingerprinted, (making.size_px, making.size_px, 3), "uint8")


def write_note(layout: Layout, making: Resizing, image_ids: Iterable[str], kept: bool) -> None:
    """Write which pixels belong to the splits, where no manifest of a shared store says so."""
    ids = sorted(image_ids)
    with replacing_folder(layout.pixels.folder) as folder:
        Note(
            fingerprint=contract(making).fingerprint,
            kept=kept,
            n_rows=len(ids),
            images_sha256=fingerprint(images=" ".join(ids)),
        ).write(folder / arrays.MANIFEST)


def opened(layout: Layout) -> Source:
    """Return where the project's pixels come from: the cache, a shared store, or the images themselves."""
    making, (folder, shards) = resizing(layout), layout.pixels
    manifest = folder / arrays.MANIFEST
    note = Note.read(manifest, "transform")
    if note.fingerprint != contract(making).fingerprint:
        raise CheckError(f"{folder} tells of pixels of another resize.onnx or decoder. Run `dvc repro transform`.")
    if not note.kept:
        return making
    is_shared = note.images_sha256 is None
    return Kept(folder, shards, sha256_of(manifest)) if is_shared else Cached(making, layout.cache)


@lru_cache
def threads(n_threads: int) -> ThreadPoolExecutor:
    """Return this process's pool of so many threads, which jobs share."""
    return ThreadPoolExecutor(n_threads)


@lru_cache(4)
def _cached(cached: Cached) -> RowCache:
    return RowCache(cached.cache, "pixels", contract(cached.making))


@lru_cache(4)
def _opened(kept: Kept) -> arrays.Store:
    return arrays.Store(Place(kept.folder, kept.shards), "transform")


@lru_cache(4)
def _session(graph: bytes) -> onnxruntime.InferenceSession:
    return runtime.session(graph, threads=1)  # the pool is the parallelism
