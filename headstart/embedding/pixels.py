"""An image's pixels, uint8 [S, S, 3], by resize.onnx: read from the store, or made again where none is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict

from headstart import images
from headstart.base.cores import n_cores
from headstart.base.errors import CheckError
from headstart.base.files import Place, located, replacing_folder, sha256_of
from headstart.base.records import Record
from headstart.onnx import backbone_folder, runtime
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint

if TYPE_CHECKING:
    import onnxruntime

    from headstart.layout import Layout

Source = Callable[[Mapping[str, str]], np.ndarray]  # image_id -> where its bytes are; uint8 [N, S, S, 3] in that order


class Note(Record):
    """The first record of a pixel store's manifest: what its rows follow from, and whether they are kept."""

    model_config = ConfigDict(extra="ignore")

    fingerprint: str
    kept: bool = True  # False: they are made where they are read, and nothing else is in the manifest


@dataclass(frozen=True)
class Resizing:
    """Images decoded and resized: a `Source`, and by `on_every_core` what a pixel store is built with."""

    graph: bytes  # resize.onnx
    size_px: int
    folder: Path  # that the images' paths are relative to

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
        rgb = images.decode(images.read_unchanged(located(where, self.folder), image_id)).rgb
        row: np.ndarray = _session(self.graph).run(None, {"image": rgb[None]})[0][0]
        return row


@dataclass(frozen=True)
class Kept:
    """Rows of a finished pixel store: a `Source`."""

    folder: Path
    shards: Path
    manifest_sha256: str  # so that a process that has the store open notices another

    def __call__(self, wanted: Mapping[str, str]) -> np.ndarray:
        """Return uint8 [N, S, S, 3]; CheckError where the store is damaged or lacks an image."""
        return _opened(self).read(list(wanted))


def resizing(layout: Layout) -> Resizing:
    """Return the `Resizing` of the project's images, by the resize.onnx of the stage `backbone`."""
    graph = backbone_folder.piece(layout.backbone, backbone_folder.RESIZE).read_bytes()
    return Resizing(graph, backbone_folder.read(layout.backbone).preprocessing.resize_px, layout.images)


def contract(making: Resizing) -> Contract:
    """Return everything that a row's bytes follow from, except the image."""
    fingerprinted = fingerprint(resize=making.graph.hex(), decoder=images.decoder())
    return Contract(fingerprinted, (making.size_px, making.size_px, 3), "uint8")


def write_note(layout: Layout, making: Resizing) -> None:
    """Write a manifest without rows: readers make the pixels themselves."""
    with replacing_folder(layout.pixels.folder) as folder:
        Note(fingerprint=contract(making).fingerprint, kept=False).write(folder / arrays.MANIFEST)


def opened(layout: Layout) -> Source:
    """Return where the project's pixels come from: the store if it is kept, else the images themselves."""
    making, (folder, shards) = resizing(layout), layout.pixels
    manifest = folder / arrays.MANIFEST
    note = Note.read(manifest, "transform")
    if note.fingerprint != contract(making).fingerprint:
        raise CheckError(f"{folder} holds pixels of another resize.onnx or decoder. Run `dvc repro transform`.")
    return Kept(folder, shards, sha256_of(manifest)) if note.kept else making


@lru_cache
def threads(n_threads: int) -> ThreadPoolExecutor:
    """Return this process's pool of so many threads, which jobs share."""
    return ThreadPoolExecutor(n_threads)


@lru_cache(4)
def _opened(kept: Kept) -> arrays.Store:
    return arrays.Store(Place(kept.folder, kept.shards), "transform")


@lru_cache(4)
def _session(graph: bytes) -> onnxruntime.InferenceSession:
    return runtime.session(graph, threads=1)  # the pool is the parallelism
