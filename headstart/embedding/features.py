"""The project's cached features, as the stage `embed` has left them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from headstart.base.records import Record
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


@dataclass(frozen=True)
class Features:
    """Both stores. Rows are read when they are asked for, so that memory does not grow with the images."""

    record: EmbeddingRecord
    plain: arrays.Store  # float [1, D] an image
    views: arrays.Store | None  # float [V, D] an image of train and val

    @property
    def n_features(self) -> int:
        """D."""
        return self.plain.contract.row_shape[1]

    @property
    def digest(self) -> str:
        """Say what the rows are: the digests of both stores' manifests, which name those of their shards."""
        return " ".join(store.digest for store in (self.plain, self.views) if store)

    def read(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the features of images as they are, [N, D] in memory."""
        return self.plain.read(image_ids)[:, 0]

    def rows(self, image_ids: Sequence[str]) -> arrays.Rows:
        """Return the features of images as they are, [N, D]."""
        return arrays.Rows(self.plain, image_ids, self.plain.contract.row_shape[1:])

    def view_rows(self, image_ids: Sequence[str]) -> arrays.Rows | None:
        """Return the features of their views, [N, V, D], or None where there are no views."""
        return arrays.Rows(self.views, image_ids, self.views.contract.row_shape) if self.views else None


def opened(layout: Layout) -> Features:
    """Return the project's features; CheckError where `embed` has not finished."""
    record = EmbeddingRecord.read(layout.features / _RECORD, "embed")
    views = arrays.Store(layout.views, "embed") if record.views else None
    return Features(record, arrays.Store(layout.plain_features, "embed"), views)


def write_record(layout: Layout, record: EmbeddingRecord) -> None:
    """Write how the features were computed; the last that `embed` writes, after the stores."""
    record.write(layout.features / _RECORD)
