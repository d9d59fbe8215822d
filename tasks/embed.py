"""Run every image once through the frozen backbone.

Reads the pixels and the backbone; writes artifacts/features/: the store `plain`, float [1, D] an image, with
`embed.views` the store `views`, float [V, D] an image of train and val, and embedding.json, how they were computed.
Rows that were ever computed on this machine come from its cache. With `cluster.store`, the rows are a store there.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.base import dataset
from headstart.base.dataset import TRAIN, VAL
from headstart.base.progress import say
from headstart.embedding import engines, features, pixels
from headstart.embedding.compute import planned
from headstart.embedding.filling import fill_features
from headstart.embedding.views import Views
from headstart.onnx import backbone_folder
from headstart.store.workers import workers

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_PARITY_IMAGES = 4


def run(params: Params, layout: Layout) -> None:
    """Add to the feature stores what the splits need and they lack."""
    settings = params.embed
    data = dataset.read(layout)
    backbone = backbone_folder.read(layout.backbone)
    source = pixels.opened(layout)
    plain = planned(layout.backbone, settings.engine, settings.batch_size, settings.dtype, source)
    computing = plain
    images = data.of(*dataset.SPLITS).where
    stores = [(layout.plain_features, plain, images)]
    if settings.views:
        facts = backbone.preprocessing
        views = Views(settings.views, settings.seed, facts.input_px, facts.interpolation)
        computing = replace(plain, views=views)
        stores.append((layout.views, computing, data.of(TRAIN, VAL).where))
    if plain.kind.name != "onnxruntime":
        few = dict(list(images.items())[:_PARITY_IMAGES])
        apart = engines.check_parity(plain.kind, plain.engine()[0], layout.backbone, source(few))
        say(f"{plain.kind} and onnxruntime agree on {len(few)} images to {apart:.1e}")

    of_pixels = pixels.contract(pixels.resizing(layout))
    with workers(params.cluster.address) as pool:
        for place, made_by, wanted in stores:
            fill_features(layout, place, wanted, made_by.contract(of_pixels, backbone.n_features), made_by, pool)
    if not settings.views:
        shutil.rmtree(layout.views.folder, ignore_errors=True)
    features.write_record(layout, computing.record(backbone.levels))
