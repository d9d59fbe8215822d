"""Features of images: what the frozen backbone makes of their pixels, as they are and as random crops of them.

A row is float [V, D]. V = 1 in the plain store; in the store of views it is the number of seeded augmentations, which
answer the usual reason for not caching features: they are drawn once, from the image and a seed, and never change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from headstart import engines, store
from headstart.errors import CheckError
from headstart.files import check_digest
from headstart.pixels import Source, threads

# torchvision's RandomResizedCrop, with a larger least area: pixels are a centre square already.
_AREA = (0.25, 1.0)
_LOG_RATIO = (float(np.log(3 / 4)), float(np.log(4 / 3)))
_TRIES = 10
_VIEWS_VERSION = "1"  # counted up when other views would be drawn


@dataclass(frozen=True)
class Views:
    """Random resized crops, every second one mirrored; a draw follows from the image's key, the seed and its number."""

    n_views: int
    seed: int
    input_px: int  # of the backbone, whose first nodes cut out the centre: the crop is put there
    interpolation: str

    def __str__(self) -> str:
        return f"{self.n_views} views {_VIEWS_VERSION} seed {self.seed} {self.interpolation} pillow {PIL.__version__}"

    def of(self, pixels: np.ndarray, image_id: str) -> np.ndarray:
        """Return uint8 [V, S, S, 3] for one image's pixels, uint8 [S, S, 3]."""
        side = len(pixels)
        start = round((side - self.input_px) / 2)
        inner = slice(start, start + self.input_px)
        picture = Image.fromarray(pixels)
        resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[self.interpolation]
        views = np.zeros((self.n_views, *pixels.shape), np.uint8)
        for number, view in enumerate(views):
            box, mirrored = self._draw(side, f"{self.seed}:{number}:{image_id}")
            crop = np.asarray(picture.resize((self.input_px, self.input_px), resample, box))
            view[inner, inner] = crop[:, ::-1] if mirrored else crop
        return views

    def _draw(self, side: int, key: str) -> tuple[tuple[float, float, float, float], bool]:
        random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest(), "big"))
        mirrored = random.random() < 0.5
        for _ in range(_TRIES):
            area = side * side * random.uniform(*_AREA)
            ratio = np.exp(random.uniform(*_LOG_RATIO))
            width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
            if width <= side and height <= side:
                left, top = random.uniform(0, side - width), random.uniform(0, side - height)
                return (left, top, left + width, top + height), mirrored
        return (0, 0, side, side), mirrored


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

    def contract(self, pixels: store.Contract, n_features: int) -> store.Contract:
        """Return what a row is. Kernels may round differently for another batch size, so it is part."""
        made_by = store.fingerprint(
            backbone=self.backbone_sha256,
            pixels=pixels.fingerprint,
            engine=str(self.kind),
            batch_size=str(self.batch_size),
            views=str(self.views or "plain"),
        )
        return store.Contract(made_by, (self.views.n_views if self.views else 1, n_features), self.dtype)

    def engine(self) -> tuple[engines.Engine, int]:
        """Return the engine, opened once a process, and how many threads may call it."""
        return _engine(self.kind, self.backbone, self.backbone_sha256)

    def __call__(self, wanted: Mapping[str, str], advance: store.Advance) -> np.ndarray:
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
