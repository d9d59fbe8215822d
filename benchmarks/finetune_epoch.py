"""An epoch of fine-tuning the last layer groups: the plain loop against training from the kept output of frozen layers.

The plain loop is what tutorials have: eager PyTorch, every image of every epoch augmented and run through the whole
network, the frozen layers in evaluation mode. Beside it the stage's own loop, from the store of what they gave once.
Both have the same views, batches, rates and head, so their losses have to be equal; validation is part of an epoch.

ResNet-50 has random weights: it takes the same time with any.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import arguments, machine, result, table
from headstart import params, params_file
from headstart.backbones import networks
from headstart.backbones.graph import normalisation
from headstart.base.dataset import Images
from headstart.images.decoding import decode
from headstart.onnx import pieces, runtime
from headstart.onnx.resize import resize_graph
from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.tuning import feed, loop, training
from headstart.tuning.augment import Augmentation
from headstart.tuning.history import Epoch
from headstart.tuning.network import Network, autocast
from headstart.tuning.processes import Processes
from headstart.tuning.recipe import Recipe
from headstart.tuning.schedule import phases

TARGET_SPEEDUP = 5.0
N_VIEWS = 2


def pixels_of(data: Path, backbone: networks.Backbone, n_images: int) -> tuple[Images, dict[str, np.ndarray]]:
    """Return photographs of class folders, resized as the stage `transform` does, and their labels."""
    facts = backbone.preprocessing
    session = runtime.session(
        pieces.to_bytes(resize_graph(facts.resize_px, facts.interpolation, facts.fit, facts.bar_level))
    )
    files = sorted(path for path in data.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    files = [files[number] for number in np.random.default_rng(0).permutation(len(files))[:n_images]]
    names = sorted({path.parent.name for path in files})
    ids = [f"{number:064x}" for number in range(len(files))]
    rows = (session.run(None, {"image": decode(path.read_bytes()).rgb[None]})[0][0] for path in files)
    labels = np.array([names.index(path.parent.name) for path in files])
    return Images(ids, [path.name for path in files], labels, np.array(ids)), dict(zip(ids, rows, strict=True))


def plain_loop(
    network: Network, views: feed.TrainingViews, train: Images, val: Images, recipe: Recipe
) -> tuple[list[float], list[float]]:
    """Return the seconds and the training loss of each epoch."""
    import torch
    from torch.nn.functional import cross_entropy

    settings = recipe.params
    model = network.backbone.to(memory_format=torch.contiguous_format)
    network.unfreeze(recipe.most_unfrozen)
    optimiser = training.optimiser_of(settings, network, recipe.most_unfrozen)
    trainable = list(network.parameters(recipe.most_unfrozen).values())
    scale, shift = normalisation(network.preprocessing)

    def batch(images: Images, rows: np.ndarray, draw: int) -> torch.Tensor:
        some = [views.of(images.image_ids[row], images.paths[row], draw) for row in rows]
        return torch.stack(some).float() * scale + shift

    seconds, losses = [], []
    for epoch in range(1, settings.epochs + 1):
        began, total = time.perf_counter(), 0.0
        network.unfreeze(recipe.most_unfrozen)
        batches = training.batches_of(len(train), settings.batch_size, settings.seed, epoch)
        for step, rows in enumerate(batches):
            for group in optimiser.param_groups:
                rate = recipe.rates.at(epoch - 1 + (step + 1) / len(batches))
                group["lr"] = rate * recipe.rates.of_group(group["depth"])
            optimiser.zero_grad()
            logits = network.head(model(batch(train, rows, feed.draw_of(epoch, settings.views))))
            loss = cross_entropy(logits, torch.from_numpy(train.labels[rows]))
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(trainable, settings.clip_norm or float("inf"))
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        network.eval()
        with torch.no_grad():
            for rows in np.array_split(np.arange(len(val)), max(1, len(val) // settings.batch_size)):
                network.head(model(batch(val, rows, feed.PLAIN)))
        seconds.append(time.perf_counter() - began)
        losses.append(total / len(train))
    return seconds, losses


def from_prefix(
    network: Network, views: feed.TrainingViews, train: Images, val: Images, recipe: Recipe, folder: Path
) -> tuple[list[float], list[float], float]:
    """Return the seconds and the training loss of each epoch of the stage's loop, and what the store took once."""
    (phase,) = recipe.phases
    began = time.perf_counter()
    prefix = feed.prefix_of(
        network, network.cut(phase.n_unfrozen), views, "float32", partial(autocast, "cpu", "float32")
    )
    wanted = dict(
        feed.wanted_view(image_id, path, draw)
        for of, draws in ((train, feed.draws_of(phase, N_VIEWS)), (val, [feed.PLAIN]))
        for draw in draws
        for image_id, path in zip(of.image_ids, of.paths, strict=True)
    )
    rows = RowCache(Cache.of(folder, max_gb=50), "frozen-layers", prefix.contract(n_frozen=1))
    feed.fill(rows, prefix, wanted, lambda n: None)
    once = time.perf_counter() - began
    kept = feed.PrefixFeed(network, prefix, rows, _same)
    moments: list[float] = []

    def told(epoch: Epoch, pace: object) -> None:
        moments.append(time.perf_counter())

    tuned = loop.tune(network, train, val, recipe, lambda phase: kept, _no_bar, told)
    return list(np.diff(moments)), [line.train_loss or 0.0 for line in tuned.history[1:]], once


def _same(module: Any) -> Any:
    return module


class _no_bar:  # noqa: N801 a context, as `progress.bar` is
    def __init__(self, n_images: int) -> None:
        pass

    def __enter__(self) -> Callable[[int], None]:
        return lambda n: None

    def __exit__(self, *error: object) -> None:
        pass


class Trial(NamedTuple):
    """A network with a head, and what it trains on."""

    network: Network
    views: feed.TrainingViews
    train: Images
    val: Images
    recipe: Recipe


def begun(data: Path, wanted: Any, settings: params.Finetune, n_images: int, folder: Path) -> Trial:
    """Return a fresh start, the same every time."""
    backbone = networks.load(wanted, folder, print)
    images, pixels = pixels_of(data, backbone, n_images)
    n_val = len(images) // 6
    val, train = (images[some] for some in (slice(n_val), slice(n_val, None)))
    n_classes = int(images.labels.max()) + 1
    weight = np.random.default_rng(0).normal(size=(backbone.n_features, n_classes)).astype(np.float32) * 0.01
    network = Network(backbone, weight, np.zeros(n_classes, np.float32), 0.0, "cpu", train_norms=False)
    recipe = Recipe(
        settings,
        phases(settings.unfreeze, settings.epochs, len(network.groups)),
        n_classes,
        Processes(0, 1, "cpu"),
        "float32",
        folder / "checkpoint.safetensors",
        "benchmark",
    )
    return Trial(
        network,
        feed.TrainingViews(partial(_of, pixels), Augmentation.of(settings, backbone.preprocessing.record)),
        train,
        val,
        recipe,
    )


def main() -> None:
    """Time both on both networks, one and two groups unfrozen, and print the ratios."""
    given = arguments(__doc__, epochs=4, images=240)
    values = params_file.load(Path(__file__).resolve().parents[1] / "params.yaml")
    rows, speedups, apart = [], {}, 0.0
    for name, weights in (("tf_efficientnet_lite0", "bundled"), ("resnet50", "random")):
        wanted = values.backbone.model_copy(update={"name": name, "weights": weights})
        for n_unfrozen in (1, 2):
            short = {"enabled": True, "epochs": given.epochs, "unfreeze": n_unfrozen, "views": N_VIEWS}
            short |= {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-3}  # the tutorials'; Adam would blow up rounding
            settings = params.Finetune.model_validate(values.finetune.model_dump() | short)
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                plain_s, plain_losses = plain_loop(*begun(given.data, wanted, settings, given.images, folder))
                trial = begun(given.data, wanted, settings, given.images, folder)
                kept_s, kept_losses, once_s = from_prefix(*trial, folder / "prefix")
            plain, kept = float(statistics.median(plain_s)), float(statistics.median(kept_s))
            difference = float(np.abs(np.subtract(plain_losses, kept_losses)).max())
            apart = max(apart, difference)
            speedups[name, n_unfrozen] = plain / kept
            rows.append([name, n_unfrozen, plain, kept, f"{plain / kept:.1f}", once_s, f"{difference:.1e}"])
            print(f"{name}, {n_unfrozen} groups: {plain:.1f} s and {kept:.2f} s an epoch", flush=True)
    print(f"\n{machine()}; {len(trial.train)} images, {len(trial.val)} for validation")
    head = ["network", "groups", "plain, s an epoch", "kept, s an epoch", "times", "store, s once", "losses differ by"]
    table(head, rows)
    for (name, n_unfrozen), speedup in speedups.items():
        target = TARGET_SPEEDUP if n_unfrozen == 1 else None
        is_met = speedup >= TARGET_SPEEDUP if target else None
        result(f"finetune_epoch_{name}_last_{n_unfrozen}", speedup, "times the plain loop", target, is_met)
    result("finetune_epoch_losses_apart", apart, "nats", 1e-3, apart <= 1e-3)


def _of(pixels: dict[str, np.ndarray], wanted: dict[str, str]) -> np.ndarray:
    return np.stack([pixels[image_id] for image_id in wanted])


if __name__ == "__main__":
    main()
