"""An image's pixels, uint8 [S, S, 3], by the graph that ships: from the store, or made anew where none is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart import images
from headstart.base.cores import n_cores
from headstart.base.errors import CheckError
from headstart.base.files import check_digest, located, read_json, sha256_of
from headstart.onnx import runtime
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint

if TYPE_CHECKING:
    import onnxruntime

KEPT = "kept"  # false in a manifest whose rows are made on the spot
Source = Callable[[Mapping[str, str]], np.ndarray]  # image_id -> where its bytes are; uint8 [N, S, S, 3] in that order


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


def resizing(backbone: Path, images_folder: Path) -> Resizing:
    """Return what makes pixels, as the stage `backbone` has written it to its folder."""
    record = read_json(backbone / "backbone.json", "backbone")
    check_digest(backbone / "resize.onnx", record["resize_onnx_sha256"], "backbone")
    graph = (backbone / "resize.onnx").read_bytes()
    return Resizing(graph, record["preprocessing"]["resize_px"], images_folder)


def contract(making: Resizing) -> Contract:
    """Return what a row of pixels is, and all that its bytes follow from but for the image."""
    made_by = fingerprint(resize=making.graph.hex(), decoder=images.decoder())
    return Contract(made_by, (making.size_px, making.size_px, 3), "uint8")


def source(folder: Path, shards: Path, making: Resizing) -> Source:
    """Return where pixels come from: the store in `folder` if it is kept, else the images themselves."""
    record = read_json(folder / arrays.MANIFEST, "transform")
    if record.get("fingerprint") != contract(making).fingerprint:
        raise CheckError(f"{folder} was made by something else. Run `dvc repro transform`.")
    if record.get(KEPT) is False:
        return making
    return Kept(folder, shards, sha256_of(folder / arrays.MANIFEST))


@lru_cache
def threads(n_threads: int) -> ThreadPoolExecutor:
    """Return this process's pool of so many threads, which jobs share."""
    return ThreadPoolExecutor(n_threads)


@lru_cache(4)
def _opened(kept: Kept) -> arrays.Store:
    return arrays.Store(kept.folder, "transform", kept.shards)


@lru_cache(4)
def _session(graph: bytes) -> onnxruntime.InferenceSession:
    return runtime.session(graph, threads=1)  # the pool is the parallelism
