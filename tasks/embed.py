"""Run every image once through the frozen backbone.

Reads the pixels and the backbone; writes artifacts/features/: the store `plain`, float [1, D] an image, with
`embed.views` the store `views`, float [V, D] an image of train and val, and embedding.json, how they were computed.
Rows that were ever computed on this machine come from its cache. With `cluster.store`, the rows are a store there.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from headstart.base import dataset, disk
from headstart.base.dataset import TRAIN, VAL
from headstart.base.progress import bar, say, warn
from headstart.embedding import engines, features, pixels
from headstart.embedding.compute import Embedding
from headstart.embedding.features import EmbeddingRecord
from headstart.embedding.views import Views
from headstart.onnx import backbone_folder
from headstart.store import arrays
from headstart.store.row_cache import RowCache
from headstart.store.workers import workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from headstart.base.files import Place
    from headstart.layout import Layout
    from headstart.params import Params
    from headstart.store.shards import Contract
    from headstart.store.workers import Workers

_PARITY_IMAGES = 4


def run(params: Params, layout: Layout) -> None:
    """Add to the feature stores what the splits need and they lack."""
    settings = params.embed
    data = dataset.read(layout)
    backbone = backbone_folder.read(layout.backbone)
    kind = engines.kind(settings.engine, is_in_torch=backbone.backbone_safetensors_sha256 is not None)
    batch_size = settings.batch_size or kind.batch_size
    source = pixels.opened(layout)

    def embedding(views: Views | None) -> Embedding:
        digest = backbone.backbone_onnx_sha256  # compared with the file where that is opened
        return Embedding(layout.backbone, digest, kind, batch_size, source, settings.dtype, views)

    images = data.of(*dataset.SPLITS).where
    stores = [("embedding", layout.plain_features, embedding(views=None), images)]
    if settings.views:
        facts = backbone.preprocessing
        views = Views(settings.views, settings.seed, facts.input_px, facts.interpolation)
        stores.append(("embedding views", layout.views, embedding(views), data.of(TRAIN, VAL).where))
    if kind.name != "onnxruntime":
        few = dict(list(images.items())[:_PARITY_IMAGES])
        apart = engines.check_parity(kind, embedding(views=None).engine()[0], layout.backbone, source(few))
        say(f"{kind} and onnxruntime agree on {len(few)} images to {apart:.1e}")

    of_pixels = pixels.contract(pixels.resizing(layout))
    with workers(params.cluster.address) as pool:
        for what, place, computing, wanted in stores:
            contract = computing.contract(of_pixels, backbone.n_features)
            with bar(what, len(wanted), "image") as advance:
                if params.cluster.store is None:
                    n_computed = _from_cache(layout, place, wanted, contract, computing, pool, advance)
                else:
                    n_computed = arrays.build(place, wanted, contract, computing, pool, advance, warn)
            say(f"{n_computed} images computed, {len(wanted) - n_computed} reused")
    if not settings.views:
        shutil.rmtree(layout.views.folder, ignore_errors=True)
    features.write_record(
        layout,
        EmbeddingRecord(
            engine=str(kind),
            precision=kind.precision,
            dtype=settings.dtype,
            batch_size=batch_size,
            views=settings.views,
            levels=backbone.levels,
        ),
    )


def _n_bytes(place: Place) -> int:
    """Return how much the shards take that are there already, and are replaced one by one."""
    return sum(path.stat().st_size for path in place.shards.glob("*")) if place.shards.is_dir() else 0


def _from_cache(
    layout: Layout,
    place: Place,
    wanted: Mapping[str, str],
    contract: Contract,
    computing: Embedding,
    pool: Workers,
    advance: arrays.Advance,
) -> int:
    """Compute what the cache lacks and write the store from it; return the number of rows computed."""
    rows = RowCache(layout.cache, "views" if computing.views else "features", contract)
    if refusal := rows.refusal(len(wanted)):
        warn(f"features are not kept in the cache: {refusal}")
        return arrays.build(place, wanted, contract, computing, pool, advance, warn)
    disk.check_room(place.shards, len(wanted) * contract.row_bytes - _n_bytes(place), "the features")
    n_computed = rows.fill(wanted, computing, pool, advance, warn)

    def read(some: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        return rows.read(some, lambda lost: computing(lost, advance))

    with workers(None) as here:
        arrays.build(place, wanted, contract, read, here)
    return n_computed
