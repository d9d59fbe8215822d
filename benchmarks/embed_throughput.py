"""Images a second of `transform` and `embed`, against the bare inference limit and a naive PyTorch loop.

The bare limit is the engine of `embed`, with as many threads, in a loop over pixels that are in memory already. The
naive loop is what tutorials write: ImageFolder, transforms, DataLoader, the eager network under `torch.no_grad`. Stages
run in this process, so that starting Python (0.5 s a stage) is in none of the figures; all else that a stage does is.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.harness import arguments, assign, machine, multiplied, project, result, run, table
from headstart import params, params_file
from headstart.backbones import networks
from headstart.base import progress, tables
from headstart.embedding import engines, pixels
from headstart.layout import Layout
from headstart.onnx import backbone_folder
from tasks import embed, transform

TARGET_EMBED = 0.92
TARGET_BOTH = {"tf_efficientnet_lite0": 0.60, "resnet50": 0.85}
TARGET_NAIVE = 5.0


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def bare_limit(layout: Layout, kind: engines.Kind, n_images: int) -> float:
    """Return images a second of the engine alone, over batches that lie in memory."""
    where = dict(tables.read(layout.splits, tables.SPLITS, "split").select("image_id", "path").iter_rows())
    few = pixels.opened(layout)(dict(list(where.items())[: 8 * kind.batch_size]))
    batches = [few[start : start + kind.batch_size] for start in range(0, len(few), kind.batch_size)]
    batches = [batch for batch in batches if len(batch) == kind.batch_size]
    engine = engines.opened(kind, layout.backbone)
    rounds = max(1, n_images // kind.batch_size)
    with ThreadPoolExecutor(kind.threads) as pool:
        list(pool.map(engine, batches))  # warm
        seconds = timed(lambda: list(pool.map(engine, (batches[number % len(batches)] for number in range(rounds)))))
    return rounds * kind.batch_size / seconds


def naive_loop(values: params.Params, layout: Layout, data: Path, n_images: int) -> float:
    """Return images a second of the eager network over the files, as tutorials embed."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    facts = backbone_folder.read(layout.backbone).preprocessing
    module = networks.load(values.backbone, layout.weights, lambda line: None).module
    steps = [
        transforms.Resize(facts.resize_px, transforms.InterpolationMode(facts.interpolation)),
        transforms.CenterCrop(facts.input_px),
        transforms.ToTensor(),
        transforms.Normalize(facts.mean, facts.std),
    ]
    images = Subset(datasets.ImageFolder(str(data), transforms.Compose(steps)), range(n_images))
    torch.set_num_threads(os.cpu_count() or 1)

    def loop() -> None:
        found = []
        with torch.no_grad():
            for batch, _ in DataLoader(images, batch_size=32, num_workers=os.cpu_count() or 1):
                found.append(module(batch))
        assert len(torch.cat(found)) == n_images

    return n_images / timed(loop)


def measure(name: str, data: Path, n_images: int, n_naive: int, repeats: int) -> None:
    """Print the table and the results of one backbone."""
    weights = "bundled" if name == "tf_efficientnet_lite0" else "random"
    with project() as root:
        multiplied(data, root / "photos", n_images)
        assign(root, backbone__name=name, backbone__weights=weights, data__root="photos")
        for stage in ("validate", "split", "backbone"):
            run(root, "python", "-m", "tasks", stage)
        values = params_file.load(root / "params.yaml")
        layout = Layout.of(root, values)
        kind = engines.kind(values.embed.engine)
        transform.run(values, layout)
        seconds: dict[str, list[float]] = {"bare": [], "transform": [], "embed": [], "naive": []}
        for _ in range(repeats):  # side by side, so that a slow minute hits all
            seconds["bare"].append(n_images / bare_limit(layout, kind, n_images))
            shutil.rmtree(layout.cache.folder)  # else neither stage has anything to do
            seconds["transform"].append(timed(lambda: transform.run(values, layout)))
            shutil.rmtree(layout.features, ignore_errors=True)
            seconds["embed"].append(timed(lambda: embed.run(values, layout)))
            seconds["naive"].append(n_images / naive_loop(values, layout, root / "photos", n_naive))
        bare, decoding, embedding, naive = (float(np.median(seconds[each])) for each in seconds)
    rows = [
        ["bare inference limit", n_images / bare, 1.0],
        ["`embed`", n_images / embedding, bare / embedding],
        ["`transform`", n_images / decoding, bare / decoding],
        ["`transform` + `embed`", n_images / (decoding + embedding), bare / (decoding + embedding)],
        ["naive eager loop", n_images / naive, bare / naive],
    ]
    print(f"\n{name}, {n_images} images, {kind}, batch {kind.batch_size}; {machine()}; medians of {repeats}")
    table(["", "images a second", "of the bare limit"], rows)
    both = bare / (decoding + embedding)
    result(f"embed_of_bare_limit_{name}", bare / embedding, "", TARGET_EMBED, bare / embedding >= TARGET_EMBED)
    result(f"transform_and_embed_of_bare_limit_{name}", both, "", TARGET_BOTH[name], both >= TARGET_BOTH[name])
    faster = naive / (decoding + embedding)
    result(f"transform_and_embed_over_naive_{name}", faster, "times", TARGET_NAIVE, faster >= TARGET_NAIVE)


def main() -> None:
    """Measure the backbones named."""
    given = arguments(
        __doc__, images=2000, naive_images=200, repeats=3, backbones=["tf_efficientnet_lite0", "resnet50"]
    )
    progress.begin("benchmark")
    for name in given.backbones:
        n_images = given.images if name == "tf_efficientnet_lite0" else given.images // 2
        measure(name, given.data, n_images, given.naive_images, given.repeats)


if __name__ == "__main__":
    main()
