"""Run every image once through the frozen backbone.

Reads the pixels and the backbone; writes artifacts/features/: the store `plain`, float [1, D] an image, with
`embed.views` the store `views`, float [V, D] an image of train and val, and embedding.json, how they were computed.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import polars as pl

from headstart.base import tables
from headstart.base.files import read_json, write_json
from headstart.base.progress import bar, say, warn
from headstart.embedding import engines, pixels
from headstart.embedding.features import Embedding
from headstart.embedding.views import Views
from headstart.store import arrays
from headstart.store.workers import workers

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_PARITY_IMAGES = 4


def run(params: Params, layout: Layout) -> None:
    """Bring the feature stores up to the splits."""
    settings = params.embed
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    backbone = read_json(layout.backbone / "backbone.json", "backbone")
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    source = pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing)
    kind = engines.kind(settings.engine)
    batch_size = settings.batch_size or kind.batch_size
    digest = backbone["backbone_onnx_sha256"]  # held to the file where it is opened
    plain = Embedding(layout.backbone, digest, kind, batch_size, source, settings.dtype, views=None)
    images = dict(splits.select("image_id", "path").iter_rows())
    stores = [("embedding", layout.plain_features, plain, images)]
    if settings.views:
        trained_on = splits.filter(pl.col("split") != "test").select("image_id", "path")
        facts = backbone["preprocessing"]
        views = Views(settings.views, settings.seed, facts["input_px"], facts["interpolation"])
        augmented = Embedding(layout.backbone, digest, kind, batch_size, source, settings.dtype, views)
        stores.append(("embedding views", layout.views, augmented, dict(trained_on.iter_rows())))
    if kind.name != "onnxruntime":
        few = dict(list(images.items())[:_PARITY_IMAGES])
        apart = engines.check_parity(kind, plain.engine()[0], layout.backbone, source(few))
        say(f"{kind} and onnxruntime agree on {len(few)} images to {apart:.1e}")

    with workers(params.cluster.address) as pool:
        for what, folder, embedding, wanted in stores:
            made_by = embedding.contract(pixels.contract(resizing), backbone["n_features"])
            shards = layout.shards(folder, params.cluster.store)
            with bar(what, len(wanted), "image") as advance:
                n_computed = arrays.build(folder, wanted, made_by, embedding, pool, advance, warn, shards)
            say(f"{n_computed} images computed, {len(wanted) - n_computed} were there")
    if not settings.views:
        shutil.rmtree(layout.views, ignore_errors=True)
    write_json(
        layout.features / "embedding.json",
        {
            "engine": str(kind),
            "precision": kind.precision,
            "dtype": settings.dtype,
            "batch_size": batch_size,
            "views": settings.views,
        },
    )
