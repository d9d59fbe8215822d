"""Compute the rows of a feature store, on this machine or on a worker, by the planned engine and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.base.errors import CheckError
from headstart.base.files import check_digest
from headstart.embedding import engines
from headstart.embedding.batches import Engine, in_batches
from headstart.embedding.features import EmbeddingRecord
from headstart.embedding.pixels import Source
from headstart.embedding.views import Views
from headstart.onnx import backbone_folder
from headstart.onnx.backbone_folder import BACKBONE, LevelRecord
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint

Dtype = Literal["float32", "float16"]
EngineName = Literal["auto", "onnxruntime", "openvino", "torch"]


@dataclass(frozen=True)
class Embedding:
    """An engine on a backbone, as a feature store needs it. It can be sent to a worker."""

    backbone: Path  # the folder of backbone.onnx
    backbone_sha256: str
    kind: engines.Kind
    batch_size: int
    pixels: Source
    dtype: Dtype
    views: Views | None

    def contract(self, pixels: Contract, n_features: int) -> Contract:
        """Return what a row follows from. Another batch size may run kernels that round otherwise, so it is part."""
        fingerprinted = fingerprint(
            backbone=self.backbone_sha256,
            pixels=pixels.fingerprint,
            engine=str(self.kind),
            batch_size=str(self.batch_size),
            views=str(self.views or "plain"),
        )
        return Contract(fingerprinted, (self.views.n_views if self.views else 1, n_features), self.dtype)

    def record(self, levels: Sequence[LevelRecord]) -> EmbeddingRecord:
        """Return how the features are computed, for embedding.json."""
        return EmbeddingRecord(
            engine=str(self.kind),
            precision=self.kind.precision,
            dtype=self.dtype,
            batch_size=self.batch_size,
            views=self.views.n_views if self.views else 0,
            levels=list(levels),
        )

    def engine(self) -> tuple[Engine, int]:
        """Return the engine, opened once a process, and how many threads may call it."""
        return _engine(self.kind, self.backbone, self.backbone_sha256)

    def __call__(self, wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        """Return [N, V, D] for image_id -> where its bytes are."""
        engine, n_threads = self.engine()
        return in_batches(engine, self.pixels, wanted, self.batch_size, n_threads, advance, self.views).astype(
            self.dtype
        )


def planned(backbone: Path, engine: EngineName, batch_size: int | None, dtype: Dtype, pixels: Source) -> Embedding:
    """Return an engine on the backbone of a folder, without views; `batch_size` None is the engine's own."""
    known = backbone_folder.read(backbone)
    kind = engines.kind(engine, is_in_torch=known.backbone_safetensors_sha256 is not None)
    digest = known.backbone_onnx_sha256  # compared with the file where that is opened
    return Embedding(backbone, digest, kind, batch_size or kind.batch_size, pixels, dtype, None)


@lru_cache(2)
def _engine(chosen: engines.Kind, backbone: Path, backbone_sha256: str) -> tuple[Engine, int]:
    """CheckError if this worker is not what the process that planned the work expects."""
    here = engines.kind(chosen.name)
    if str(here) != str(chosen):
        raise CheckError(
            f"a worker of the cluster runs {here}, where {chosen} was expected. The same versions and devices"
            " everywhere keep the features comparable. Install headstart alike on all of them."
        )
    check_digest(backbone / BACKBONE, backbone_sha256, "backbone")
    return engines.opened(here, backbone), here.threads
