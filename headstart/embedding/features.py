"""The project's cached features, as the stage `embed` has left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from headstart.base.records import Record
from headstart.onnx.backbone_folder import LevelRecord
from headstart.store import arrays

if TYPE_CHECKING:
    from headstart.layout import Layout


_RECORD = "embedding.json"


class EmbeddingRecord(Record):
    """embedding.json: how the features were computed."""

    engine: str
    precision: str  # that the convolutions compute in
    dtype: Literal["float32", "float16"]  # that the features are kept in
    batch_size: int
    views: int  # random crops of every image of train and val; 0: none
    levels: list[LevelRecord]  # slices of a row


@dataclass(frozen=True)
class Features:
    """Both stores. Rows are read when they are asked for, so that memory does not grow with the images."""

    record: EmbeddingRecord
    plain: arrays.Store  # float [1, all] an image
    views: arrays.Store | None  # float [V, all] an image of train and val
    columns: slice | np.ndarray  # D of all the columns that are stored

    @property
    def digest(self) -> str:
        """Say what the rows are: the digests of both stores' manifests, which name those of their shards."""
        return " ".join(store.digest for store in (self.plain, self.views) if store)

    def read(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the features of images as they are, [N, D] in memory."""
        return self.plain.read(image_ids)[:, 0, self.columns]

    def rows(self, image_ids: Sequence[str]) -> Columns:
        """Return the features of images as they are, [N, D]."""
        return Columns(arrays.Rows(self.plain, image_ids, self.plain.contract.row_shape[1:]), self.columns)

    def view_rows(self, image_ids: Sequence[str]) -> Columns | None:
        """Return the features of their views, [N, V, D], or None where there are no views."""
        if not self.views:
            return None
        return Columns(arrays.Rows(self.views, image_ids, self.views.contract.row_shape), self.columns)

    def at(self, levels: Sequence[str]) -> Features:
        """Return the features of these levels alone, in the order in which they are stored."""
        return replace(self, columns=_columns(self.record.levels, levels))


class Columns:
    """Some columns of stored rows, read when they are asked for."""

    def __init__(self, rows: arrays.Rows, columns: slice | np.ndarray) -> None:
        self._rows, self._columns = rows, columns
        *before, n_columns = rows.shape
        self.shape = (*before, len(np.arange(n_columns)[columns]))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of these numbers, [len(rows), ..., D]."""
        return self._rows[rows][..., self._columns]


def opened(layout: Layout) -> Features:
    """Return the project's features, of all levels; CheckError where `embed` has not finished."""
    record = EmbeddingRecord.read(layout.features / _RECORD, "embed")
    views = arrays.Store(layout.views, "embed") if record.views else None
    return Features(record, arrays.Store(layout.plain_features, "embed"), views, slice(None))


def _columns(known: Sequence[LevelRecord], levels: Sequence[str]) -> slice | np.ndarray:
    """Return the columns of some levels: a slice, which copies nothing, where they lie beside each other."""
    columns = np.concatenate([np.arange(each.start, each.start + each.width) for each in known if each.name in levels])
    if len(columns) == columns[-1] - columns[0] + 1:
        return slice(int(columns[0]), int(columns[-1]) + 1)
    return columns


def write_record(layout: Layout, record: EmbeddingRecord) -> None:
    """Write how the features were computed; the last that `embed` writes, after the stores."""
    record.write(layout.features / _RECORD)
