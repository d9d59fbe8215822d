"""Images through a network in batches, on every core."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from headstart.embedding.pixels import Source, threads
from headstart.embedding.views import Views

CPU_BATCH = 4  # activations of 4 images stay in a core's cache
Engine = Callable[[np.ndarray], np.ndarray]  # uint8 [B, S, S, 3] -> float32 [B, D], from several threads


def in_batches(
    engine: Engine,
    source: Source,
    wanted: Mapping[str, str],
    batch_size: int,
    n_threads: int,
    advance: Callable[[int], None],
    views: Views | None = None,
) -> np.ndarray:
    """Return float32 [N, V, D] for image_id -> where its bytes are; V = 1 without `views`.

    Each core has a thread with batches of its own. That beats one batch on all cores, because one batch is read,
    decoded and resized while another is in inference. Every batch is filled up to `batch_size`, so that an image's
    features do not depend on the images beside it.
    """
    items = list(wanted.items())
    step = max(1, batch_size // (views.n_views if views else 1))

    def embed(start: int) -> np.ndarray:
        batch = dict(items[start : start + step])
        pixels = source(batch)
        if views:
            pixels = np.concatenate([views.of(*item) for item in zip(pixels, batch, strict=True)])
        features = _full_batches(engine, pixels, batch_size)
        advance(len(batch))
        return features.reshape(len(batch), -1, features.shape[1])

    return np.concatenate(list(threads(n_threads).map(embed, range(0, len(items), step))))


def _full_batches(engine: Engine, pixels: np.ndarray, batch_size: int) -> np.ndarray:
    features = []
    for start in range(0, len(pixels), batch_size):
        part = pixels[start : start + batch_size]
        if len(part) < batch_size:
            filling = np.zeros((batch_size - len(part), *part.shape[1:]), part.dtype)
            part = np.concatenate([part, filling])
        features.append(engine(part)[: len(pixels) - start])
    return np.concatenate(features)
