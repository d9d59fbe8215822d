"""What the audit looks at: every image with its features, pixels, split, and what a head says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from headstart.auditing import alignment, label_errors
from headstart.auditing.duplicates import Compare
from headstart.auditing.label_errors import Judged
from headstart.auditing.measured import Measured, pair_keys
from headstart.base import dataset, tables
from headstart.base.cores import n_cores
from headstart.base.dataset import Images
from headstart.base.files import located
from headstart.embedding import engines, features, pixels
from headstart.embedding.batches import CPU_BATCH, Engine
from headstart.embedding.features import Columns
from headstart.embedding.pixels import Source, threads
from headstart.images import decoding
from headstart.onnx import backbone_folder, head_folder, runtime
from headstart.reviewed import About

if TYPE_CHECKING:
    import polars as pl

    from headstart.layout import Layout

_CHUNK = 32  # images whose pixels are read at a time


@dataclass(frozen=True)
class Seen:
    """All images of the splits, sorted by image_id, and how to get at what belongs to them."""

    layout: Layout
    images: Images
    splits: np.ndarray  # str [N]
    classes: list[str]
    rows: Columns  # float [N, D], the features of the level `last`
    every: Columns  # float [N, all], those of all levels side by side
    levels: Sequence[slice]  # the columns of each level

    @classmethod
    def of(cls, layout: Layout) -> Seen:
        """Return the images of a run; CheckError where a stage before has not finished."""
        data = dataset.read(layout)
        seen = data.of(*dataset.SPLITS)
        split_of = {image_id: split for split in dataset.SPLITS for image_id in data.of(split).image_ids}
        splits = np.array([split_of[image_id] for image_id in seen.image_ids])
        cached = features.opened(layout)
        last, every = cached.at((backbone_folder.LAST,)).rows(seen.image_ids), cached.rows(seen.image_ids)
        levels = [slice(each.start, each.start + each.width) for each in cached.record.levels]
        return cls(layout, seen, splits, data.classes, last, every, levels)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> np.ndarray:
        """Int64 [N]."""
        return self.images.labels

    @property
    def is_held_out(self) -> np.ndarray:
        """Bool [N]: in the test split."""
        held_out: np.ndarray = self.splits == dataset.TEST
        return held_out

    @property
    def has_groups(self) -> bool:
        """Whether the data say of every image what belongs to it; decisions in reviewed.csv do so of some images."""
        return all(group != image_id for group, image_id in zip(self.images.groups, self.images.image_ids, strict=True))

    @cached_property
    def _manifest(self) -> pl.DataFrame:
        return tables.read(self.layout.manifest, tables.MANIFEST, "validate")

    @property
    def about(self) -> dict[str, About]:
        """What the manifest says of each image, by image_id."""
        rows = self._manifest.select("image_id", "path", "label", "group", "given_split").iter_rows()
        return {image_id: About(*told) for image_id, *told in rows}

    @cached_property
    def sizes(self) -> np.ndarray:
        """Int [N, 2]: width and height of the files' pictures, in px."""
        rows = self._manifest.select("image_id", "width_px", "height_px").iter_rows()
        size_of = {image_id: size for image_id, *size in rows}
        return np.array([size_of[image_id] for image_id in self.images.image_ids])

    @cached_property
    def judged(self) -> Judged:
        """What a head that was not fitted on an image says of it.

        Out of fold for train and val, if the image was in the cross-validation; by head.onnx for test.
        """
        found = label_errors.nobody(len(self))
        table = head_folder.out_of_fold(self.layout.head)
        at = {image_id: row for row, image_id in enumerate(self.images.image_ids)}
        rows = np.array([at[image_id] for image_id in table["image_id"]], np.int64)
        given = np.empty((len(rows), len(self.classes)), np.float32)
        given[np.argsort(np.argsort(rows))] = table["probabilities"].explode().to_numpy().reshape(given.shape)
        known = np.sort(rows)
        label_errors.judge(found, known, self.labels, lambda some: given[np.searchsorted(known, some)])
        head = head_folder.read(self.layout.head)
        read = features.opened(self.layout).at(head.levels)
        session = runtime.session(head_folder.piece(self.layout.head))

        def answered(some: np.ndarray) -> np.ndarray:
            inputs = read.read([self.images.image_ids[row] for row in some]).astype(np.float32)
            return np.asarray(session.run(["probabilities"], {"features": inputs})[0])

        label_errors.judge(found, np.flatnonzero(self.is_held_out), self.labels, answered)
        return found

    @cached_property
    def _source(self) -> Source:
        return pixels.opened(self.layout)

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return uint8 [n, S, S, 3] of the images of these numbers."""
        return self._source(self.images[rows].where)

    def of_each(
        self, measure: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, advance: Callable[[int], None]
    ) -> np.ndarray:
        """Return what `measure` says of the pixels of some images, [n, ...], a chunk of images in memory a core."""

        def chunk(start: int) -> list[np.ndarray]:
            some = rows[start : start + _CHUNK]
            found = [measure(each) for each in self.pixels(some)]
            advance(len(some))
            return found

        return np.array([one for some in threads(n_cores()).map(chunk, range(0, len(rows), _CHUNK)) for one in some])

    @cached_property
    def measured(self) -> Measured:
        """What earlier runs have measured of these images and pairs of them."""
        return Measured(self.layout.cache, pixels.contract(pixels.resizing(self.layout)).fingerprint)

    def compared_before(self, pairs: np.ndarray, compare: Compare) -> np.ndarray:
        """Return the correlations of pairs, float32 [P]: `compare` is called for those that no earlier run compared."""
        keys = pair_keys(self.images.image_ids, pairs)
        return self.measured.rows(alignment.NAME, 1, keys, lambda numbers: compare(pairs[numbers]))[:, 0]

    @cached_property
    def _engine(self) -> Engine:
        return engines.opened(engines.kind("onnxruntime"), self.layout.backbone)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 [n, all], as `every`, of uint8 [n, S, S, 3], by onnxruntime."""
        parts = [pixels[start : start + CPU_BATCH] for start in range(0, len(pixels), CPU_BATCH)]
        return np.concatenate(list(threads(n_cores()).map(self._engine, parts)))

    def backbone(self, pixels: np.ndarray) -> np.ndarray:
        """Return float32 [n, D], as `rows`, of uint8 [n, S, S, 3], by onnxruntime."""
        columns = features.opened(self.layout).at((backbone_folder.LAST,)).columns
        found: np.ndarray = self.embed(pixels)[:, columns]
        return found

    def file(self, row: int) -> bytes:
        """Return the bytes of the image's file."""
        image_id, where = self.images.image_ids[row], self.images.paths[row]
        return decoding.read_unchanged(located(where, self.layout.images), image_id)
