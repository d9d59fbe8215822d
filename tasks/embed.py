"""Run every image once through the frozen backbone.

Reads the pixel store and backbone.onnx; writes the store artifacts/features, float32 [V, D] an image, V = 1. An image's
features do not depend on the images beside it in a batch: every batch is filled up to the same size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

from headstart import graphs, store, tables
from headstart.files import read_json, sha256_of
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import bar, say, warn


@contextmanager
def embedding(
    backbone_onnx: Path,
    pixels: Callable[[Sequence[str]], np.ndarray],
    batch_size: int,
    advance: Callable[[int], None],
) -> Iterator[Callable[[Sequence[str]], np.ndarray]]:
    """Yield a function from image_ids to float32 [N, 1, D]; `pixels` gives uint8 [N, S, S, 3], for any thread.

    A thread a core, each with batches of its own, beats one batch on all cores, and the values do not depend on the
    number of cores.
    """
    session = graphs.session(backbone_onnx, threads=1)

    def features_of_batch(image_ids: Sequence[str]) -> np.ndarray:
        images = pixels(image_ids)
        padding = np.zeros((batch_size - len(images), *images.shape[1:]), images.dtype)
        features: np.ndarray = session.run(None, {"pixels": np.concatenate([images, padding])})[0]
        advance(len(images))
        return features[: len(images)]

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def features_of(image_ids: Sequence[str]) -> np.ndarray:
            batches = [image_ids[start : start + batch_size] for start in range(0, len(image_ids), batch_size)]
            return np.concatenate(list(pool.map(features_of_batch, batches)))[:, None]

        yield features_of


def contract(backbone_onnx: Path, pixels: store.Contract, n_features: int, batch_size: int) -> store.Contract:
    """Return what computes a row of features. Kernels may round differently for another batch size, so it is part."""
    made_by = store.fingerprint(
        backbone=sha256_of(backbone_onnx),
        pixels=pixels.fingerprint,
        engine=f"onnxruntime {version('onnxruntime')} float32",
        batch_size=str(batch_size),
        views="plain",
    )
    return store.Contract(made_by, (1, n_features), "float32")


def run(params: Params, layout: Layout) -> None:
    """Bring the feature store up to the splits."""
    image_ids = tables.read(layout.splits, tables.SPLITS, "split")["image_id"].to_list()
    n_features = read_json(layout.backbone / "backbone.json", "backbone")["n_features"]
    backbone_onnx = layout.backbone / "backbone.onnx"
    pixels = store.Store(layout.pixels, "transform")
    batch_size = params.embed.batch_size
    made_by = contract(backbone_onnx, pixels.contract, n_features, batch_size)
    with (
        bar("embedding", len(image_ids), "image") as advance,
        embedding(backbone_onnx, pixels.read, batch_size, advance) as compute,
    ):
        n_computed = store.build(layout.features, image_ids, made_by, compute, advance, warn)
    say(f"{n_computed} images computed, {len(image_ids) - n_computed} were there")
