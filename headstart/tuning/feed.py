"""The input of a training step: batches of pixels, or of the frozen layers' output.

While the lower groups are frozen, their output for a view of an image is the same in every epoch. `PrefixFeed` computes
it once, keeps it in the cache of this machine under (image, view), and feeds it to the trainable layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headstart.base.dataset import Images
from headstart.base.errors import CheckError
from headstart.embedding.pixels import Source
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import Workers
from headstart.tuning.augment import Augmentation, centre

if TYPE_CHECKING:
    import torch

    from headstart.tuning.cut import Cut
    from headstart.tuning.network import Network
    from headstart.tuning.schedule import Phase

PLAIN = -1  # the draw without augmentation
_BATCH = 16  # of the prefix; always full, because kernels may round differently at another size


class Feed(Protocol):
    """A source of batches, with the computation of their features."""

    def batches(self, images: Images, rows: Sequence[np.ndarray], draw: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield the tensors of each batch of rows, with the augmentation of `draw`; `PLAIN` means none."""

    def features(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Return the features [B, D] of a batch."""


@dataclass(frozen=True)
class TrainingViews:
    """Training views of images: uint8 [3, I, I] each."""

    source: Source
    augmentation: Augmentation

    def of(self, image_id: str, path: str, draw: int) -> torch.Tensor:
        """Return one view, which depends on the image, the seed and the draw."""
        (pixels,) = self.source({image_id: path})
        if draw == PLAIN:
            return centre(pixels, self.augmentation.input_px)
        return self.augmentation.view(pixels, image_id, draw)


class PixelFeed:
    """Feeds pixels: every image runs through the whole network in every epoch."""

    def __init__(self, network: Network, views: TrainingViews, n_workers: int, compiled: Callable[[Any], Any]) -> None:
        self.network, self._views, self._n_workers = network, views, n_workers
        self.whole = compiled(network.extractor)

    def batches(self, images: Images, rows: Sequence[np.ndarray], draw: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """See `Feed`: (uint8 [B, 3, I, I],)."""
        import torch
        from torch.utils.data import DataLoader

        loader: Any = DataLoader(
            _Drawn(self._views, images, draw),  # type: ignore[arg-type]
            batch_sampler=[part.tolist() for part in rows],
            num_workers=self._n_workers,
            pin_memory=self.network.device != "cpu",
            generator=torch.Generator(),  # its own, or it would draw from dropout's
        )
        for batch in loader:
            yield (batch,)

    def features(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `Feed`."""
        features: torch.Tensor = self.whole(self.network.normalised(tensors[0]))
        return features


@dataclass(frozen=True)
class _Drawn:
    """A map-style dataset for torch."""

    views: TrainingViews
    images: Images
    draw: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.views.of(self.images.image_ids[row], self.images.paths[row], self.draw)


class PrefixFeed:
    """Feeds the cached output of the frozen layers to the trainable part of the network."""

    def __init__(self, network: Network, prefix: Prefix, rows: RowCache, compiled: Callable[[Any], Any]) -> None:
        self.network, self._prefix, self._rows = network, prefix, rows
        self._suffix = compiled(prefix.parts.suffix)

    def batches(self, images: Images, rows: Sequence[np.ndarray], draw: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """See `Feed`: the outputs of the prefix, float [B, ...] each."""
        for part in rows:
            wanted = dict(wanted_view(images.image_ids[row], images.paths[row], draw) for row in part)
            yield self._prefix.shapes.unpacked(self._rows.read(wanted, lambda lost: self._prefix(lost, lambda n: None)))

    def features(self, tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """See `Feed`."""
        device = self.network.device
        features: torch.Tensor = self._suffix(*(tensor.to(device, non_blocking=True).float() for tensor in tensors))
        return features


@dataclass(frozen=True)
class Shapes:
    """The layout of the prefix's outputs in a row of the store: one after another, channels last."""

    shapes: tuple[tuple[int, ...], ...]  # of one image

    @property
    def n_values(self) -> int:
        """The number of values in a row."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def packed(self, tensors: tuple[torch.Tensor, ...], dtype: str) -> np.ndarray:
        """Return the tensors as rows [B, n_values]."""
        rows = [
            np.moveaxis(t.float().cpu().numpy(), 1, -1) if t.ndim == 4 else t.float().cpu().numpy() for t in tensors
        ]
        with np.errstate(over="ignore"):  # `Prefix` reports an overflow
            return np.concatenate([row.reshape(len(row), -1) for row in rows], axis=1).astype(dtype)

    def unpacked(self, rows: np.ndarray) -> tuple[torch.Tensor, ...]:
        """Return the tensors that `packed` was given; images have torch's channels-last memory format."""
        import torch

        tensors, start = [], 0
        for shape in self.shapes:
            end = start + int(np.prod(shape))
            tensor = torch.from_numpy(np.ascontiguousarray(rows[:, start:end]))
            if len(shape) == 3:
                channels, height_px, width_px = shape
                tensors.append(tensor.reshape(-1, height_px, width_px, channels).permute(0, 3, 1, 2))
            else:
                tensors.append(tensor.reshape(-1, *shape))
            start = end
        return tuple(tensors)


def wanted_view(image_id: str, path: str, draw: int) -> tuple[str, str]:
    """Return the key of a view, and what `Prefix` needs to compute its row."""
    return hashlib.sha256(f"{image_id}:{draw}".encode()).hexdigest(), f"{draw} {image_id} {path}"


@dataclass(frozen=True)
class Prefix:
    """Computes the frozen part's output for the store."""

    network: Network
    parts: Cut
    views: TrainingViews
    shapes: Shapes
    dtype: str
    autocast: Callable[[], Any]

    def contract(self, n_frozen: int, **from_what: str) -> Contract:
        """Return the contract of rows; it covers all that determines them, except the image and the draw."""
        made_by = fingerprint(
            views=str(self.views.augmentation), n_frozen=str(n_frozen), batch=str(_BATCH), dtype=self.dtype, **from_what
        )
        return Contract(made_by, (self.shapes.n_values,), self.dtype)

    def __call__(self, wanted: Mapping[str, str], advance: Callable[[int], None]) -> np.ndarray:
        """Return rows [N, n_values] for the views that `wanted_view` gives."""
        import torch

        items = [where.split(" ", 2) for where in wanted.values()]
        rows = []
        for start in range(0, len(items), _BATCH):
            part = items[start : start + _BATCH]
            images = [self.views.of(image_id, path, int(draw)) for draw, image_id, path in part]
            images += [torch.zeros_like(images[0])] * (_BATCH - len(part))
            rows.append(self.shapes.packed(self._run(torch.stack(images)), self.dtype)[: len(part)])
            if not np.isfinite(rows[-1]).all():
                raise CheckError(
                    f"the frozen layers' output does not fit into {self.dtype}. Finite numbers were expected. Set"
                    " finetune.precision to float32, or finetune.views to 0, in params.yaml."
                )
            advance(len(part))
        return np.concatenate(rows)

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        import torch

        with torch.no_grad(), self.autocast():
            values: tuple[torch.Tensor, ...] = self.parts.prefix(self.network.normalised(images))
        return values


def prefix_of(
    network: Network, parts: Cut, views: TrainingViews, precision: str, autocast: Callable[[], Any]
) -> Prefix:
    """Return the frozen part as a `Prefix`; running it once gives the shapes of its output."""
    import torch

    side = views.augmentation.input_px
    with torch.no_grad():
        values = parts.prefix(network.normalised(torch.zeros(1, 3, side, side, dtype=torch.uint8)))
    shapes = Shapes(tuple(tuple(value.shape[1:]) for value in values))
    return Prefix(network, parts, views, shapes, "float32" if precision == "float32" else "float16", autocast)


def draws_of(phase: Phase, n_views: int) -> list[int]:
    """Return the distinct draws of a phase's epochs; every epoch has its own if `n_views` is 0."""
    return sorted({draw_of(epoch, n_views) for epoch in range(phase.first, phase.last + 1)})


def draw_of(epoch: int, n_views: int) -> int:
    """Return the draw of an epoch, counted from 1: the number of the view of every image."""
    return (epoch - 1) % n_views if n_views else epoch - 1


def n_prefix_passes(phase: Phase, n_views: int, n_train: int, n_val: int) -> tuple[int, int]:
    """Return how many images run through the frozen part in a phase: with its output cached, and without."""
    return len(draws_of(phase, n_views)) * n_train + n_val, phase.n_epochs * (n_train + n_val)


def fill(rows: RowCache, prefix: Prefix, wanted: Mapping[str, str], advance: Callable[[int], None]) -> int:
    """Compute what the cache lacks of the frozen part's output for `wanted`; return the number of views."""
    with ThreadPoolExecutor(1) as one:  # one thread, as augmentation draws from torch's global generator
        return rows.fill(wanted, prefix, Workers(one, 1, in_process=True), advance)
