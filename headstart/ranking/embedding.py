"""Features of some images by a candidate, in the same rows of the cache that the stage `embed` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.progress import warn
from headstart.embedding import engines, pixels
from headstart.embedding.compute import Embedding
from headstart.embedding.pixels import Cached, Resizing, Source
from headstart.onnx.backbone_folder import RESIZE
from headstart.store.row_cache import RowCache
from headstart.store.workers import tell_nobody, workers

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Embed
    from headstart.ranking.candidates import Candidate


@dataclass
class Embedder:
    """A candidate, ready to embed; `n_computed` counts its forward passes."""

    candidate: Candidate
    computing: Embedding
    rows: RowCache
    making: Resizing
    n_computed: int = field(default=0)

    @classmethod
    def of(cls, candidate: Candidate, embed: Embed, keep_pixels: bool, layout: Layout, bits: int) -> Embedder:
        """Return the embedder of a candidate, with engine, batch size and type as the stage `embed` takes them."""
        record = candidate.record
        kind = engines.kind(embed.engine, is_in_torch=record.backbone_safetensors_sha256 is not None)
        graph = (candidate.folder / RESIZE).read_bytes()
        making = Resizing(graph, record.preprocessing.resize_px, layout.images, bits)
        source: Source = Cached(making, layout.cache) if keep_pixels else making
        computing = Embedding(
            candidate.folder,
            record.backbone_onnx_sha256,
            kind,
            embed.batch_size or kind.batch_size,
            source,
            embed.dtype,
            views=None,
        )
        contract = computing.contract(pixels.contract(making), record.n_features)
        return cls(candidate, computing, RowCache(layout.cache, "features", contract), making)

    def __call__(self, wanted: Mapping[str, str], advance: Callable[[int], None]) -> np.ndarray:
        """Return float [N, D] for image_id -> where its bytes are; those that were never computed here enter the cache.

        Pixels that are made for it enter the cache too, for `transform`, unless transform.keep_pixels is false.
        """
        with workers(None) as here:
            if refusal := self.rows.refusal(len(wanted)):
                warn(f"features of {self.candidate.label} are not kept in the cache: {refusal}")
                self.n_computed += len(wanted)
                return self.computing(wanted, advance)[:, 0]
            missing = self.rows.lacking(wanted)
            source = self.computing.pixels
            if missing and isinstance(source, Cached) and not source.rows().refusal(len(missing)):
                source.rows().fill(missing, self.making.on_every_core, here)
            self.n_computed += self.rows.fill(wanted, self.computing, here, advance, warn)
        return self.rows.read(wanted, lambda lost: self.computing(lost, tell_nobody))[:, 0]
