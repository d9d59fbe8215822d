"""Features of images: what the frozen backbone makes of their pixels, as they are and as random crops of them.

A row is float [V, D]: V = 1 in the store of plain images, the number of views in the store of views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from headstart.base.errors import CheckError
from headstart.base.files import check_digest
from headstart.embedding import engines
from headstart.embedding.pixels import Source, threads
from headstart.embedding.views import Views
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint


@dataclass(frozen=True)
class Embedding:
    """What a feature store is built with, on this machine or another."""

    backbone: Path  # the folder of backbone.onnx
    backbone_sha256: str
    kind: engines.Kind
    batch_size: int
    pixels: Source
    dtype: str
    views: Views | None

    def contract(self, pixels: Contract, n_features: int) -> Contract:
        """Return what a row is. Kernels may round differently for another batch size, so it is part."""
        made_by = fingerprint(
            backbone=self.backbone_sha256,
            pixels=pixels.fingerprint,
            engine=str(self.kind),
            batch_size=str(self.batch_size),
            views=str(self.views or "plain"),
        )
        return Contract(made_by, (self.views.n_views if self.views else 1, n_features), self.dtype)

    def engine(self) -> tuple[engines.Engine, int]:
        """Return the engine, opened once a process, and how many threads may call it."""
        return _engine(self.kind, self.backbone, self.backbone_sha256)

    def __call__(self, wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        """Return [N, V, D] for image_id -> where its bytes are.

        A thread a core, each with batches of its own, beats one batch on all cores: reading, decoding and resizing of
        one batch overlap with inference on another. Every batch is filled up to the same size, so that an image's
        features do not depend on the images beside it.
        """
        engine, n_threads = self.engine()
        items = list(wanted.items())
        step = max(1, self.batch_size // (self.views.n_views if self.views else 1))

        def embed(start: int) -> np.ndarray:
            batch = dict(items[start : start + step])
            features = self._embed(engine, batch)
            advance(len(batch))
            return features

        return np.concatenate(list(threads(n_threads).map(embed, range(0, len(items), step))))

    def _embed(self, engine: engines.Engine, batch: dict[str, str]) -> np.ndarray:
        images = self.pixels(batch)
        if self.views:
            images = np.concatenate([self.views.of(*item) for item in zip(images, batch, strict=True)])
        features = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            if len(part) < self.batch_size:
                filling = np.zeros((self.batch_size - len(part), *part.shape[1:]), part.dtype)
                part = np.concatenate([part, filling])
            features.append(engine(part)[: len(images) - start])
        return np.concatenate(features).reshape(len(batch), -1, features[0].shape[1]).astype(self.dtype)


@lru_cache(2)
def _engine(chosen: engines.Kind, backbone: Path, backbone_sha256: str) -> tuple[engines.Engine, int]:
    """CheckError if this worker is not what the process that planned the work expects."""
    here = engines.kind(chosen.name)
    if str(here) != str(chosen):
        raise CheckError(
            f"a worker of the cluster runs {here}, where {chosen} was expected. The same versions and devices"
            " everywhere keep the features comparable. Install headstart alike on all of them."
        )
    check_digest(backbone / "backbone.onnx", backbone_sha256, made_by=backbone.name)  # folders are called as stages
    return engines.opened(here, backbone), here.threads
