"""A small network, a few drawn images, and everything that a training run needs, without any file."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from headstart import params, params_file
from headstart.backbones import networks
from headstart.base.dataset import Images
from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.tuning import feed
from headstart.tuning.augment import Augmentation
from headstart.tuning.feed import PixelFeed, Prefix, PrefixFeed, TrainingViews
from headstart.tuning.network import Network, autocast
from headstart.tuning.processes import Processes
from headstart.tuning.recipe import Recipe
from headstart.tuning.schedule import Phase, phases
from tests.support.images import ROOT, photograph

PARAMS = params_file.load(ROOT / "params.yaml")
SIDE, CLASSES = 72, 3
torch.set_num_threads(1)  # tests run beside each other


@cache
def known(name: str, input_px: int) -> networks.Backbone:
    wanted = {"name": name, "weights": "random", "input_px": input_px, "crop_fraction": input_px / SIDE}
    return networks.load(PARAMS.backbone.model_copy(update=wanted), Path(), lambda message: None)


def backbone(name: str = "timm/test_resnet", input_px: int = 64) -> networks.Backbone:
    """Return a backbone of its own, with random weights that are the same every time."""
    one = known(name, input_px)
    return dataclasses.replace(one, module=copy.deepcopy(one.module))


def network(name: str = "timm/test_resnet", input_px: int = 64, **options: object) -> Network:
    """Return a network with a drawn head."""
    loaded = backbone(name, input_px)
    random, torch_random = np.random.default_rng(1), torch.Generator().manual_seed(1)
    for module in loaded.module.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # some begin at 0, and what is before them learns nothing then
            with torch.no_grad():
                module.weight.uniform_(0.7, 1.3, generator=torch_random)
    weight = random.normal(size=(loaded.n_features, CLASSES)).astype(np.float32) * 0.1
    given = {"dropout": 0.0, "device": "cpu", "train_norms": False, **options}
    return Network(loaded, weight, np.zeros(CLASSES, np.float32), **given)  # type: ignore[arg-type]


def images(n_images: int, first: int = 0) -> Images:
    """Return drawn images of three classes, which `source` knows by their number."""
    numbers = range(first, first + n_images)
    ids = [f"{number:064x}" for number in numbers]
    labels = np.array([number % CLASSES for number in numbers])
    return Images(ids, [f"{number}.png" for number in numbers], labels, np.array(ids))


def source(wanted: Mapping[str, str]) -> np.ndarray:
    """Return uint8 [N, S, S, 3]; each class has a tint of its own."""
    pixels = []
    for image_id in wanted:
        tint = np.eye(CLASSES)[int(image_id, 16) % CLASSES] * 60
        pixels.append(np.clip(photograph(int(image_id, 16), SIDE, SIDE) + tint, 0, 255).astype(np.uint8))
    return np.stack(pixels)


def views(input_px: int = 64, **options: object) -> TrainingViews:
    given = {"crop_area": 0.5, "flip": True, "policy": "none", "erasing": 0.0, **options}
    return TrainingViews(source, Augmentation(0, input_px, "bilinear", (0.5, 0.5, 0.5), **given))  # type: ignore[arg-type]


def recipe(folder: Path, net: Network, **options: object) -> Recipe:
    """Return what training goes by: params.yaml's, but short, and `options`."""
    short = {"enabled": True, "epochs": 3, "batch_size": 8, "warmup_epochs": 0.5, "unfreeze": 1, "views": 0, **options}
    wanted = params.Finetune.model_validate(PARAMS.finetune.model_dump() | short)
    return Recipe(
        wanted,
        phases(wanted.unfreeze, wanted.epochs, len(net.groups)),
        CLASSES,
        Processes(0, 1, "cpu"),
        "float32",
        folder / "checkpoint.safetensors",
        "this run",
    )


def same(module: object) -> object:
    return module


def pixel_feed(net: Network, seen: TrainingViews | None = None) -> Callable[[Phase], PixelFeed]:
    shown = seen or views(net.preprocessing.input_px)
    return lambda phase: PixelFeed(net, shown, 0, same)  # type: ignore[arg-type]


def prefix(net: Network, n_unfrozen: int, seen: TrainingViews) -> Prefix:
    return feed.prefix_of(net, net.cut(n_unfrozen), seen, "float32", partial(autocast, "cpu", "float32"))


def kept_feed(
    net: Network, phase: Phase, n_views: int, seen: TrainingViews, of: tuple[Images, ...], folder: Path
) -> PrefixFeed:
    """Return the feed of a phase from what the frozen part makes of every view of some images."""
    frozen = prefix(net, phase.n_unfrozen, seen)
    draws = [*feed.draws_of(phase, n_views), feed.PLAIN]
    wanted = dict(
        feed.wanted_view(image_id, path, draw)
        for some in of
        for draw in draws
        for image_id, path in zip(some.image_ids, some.paths, strict=True)
    )
    contract = frozen.contract(n_frozen=len(net.groups) - phase.n_unfrozen, network=net.name)
    rows = RowCache(Cache.of(folder, max_gb=1), "frozen-layers", contract)
    feed.fill(rows, frozen, wanted, lambda n: None)
    return PrefixFeed(net, frozen, rows, same)  # type: ignore[arg-type]


@contextlib.contextmanager
def no_bar(n_images: int) -> Iterator[Callable[[int], None]]:
    yield lambda n: None


def state(net: Network) -> dict[str, torch.Tensor]:
    """Return a copy of every tensor, buffers included."""
    own = {f"backbone.{name}": tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    return own | {f"head.{name}": tensor.clone() for name, tensor in net.head.state_dict().items()}
