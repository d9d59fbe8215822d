"""How much memory and time each stage takes by the number of classes, with few images each.

    python -m benchmarks.many_classes                 # 10, 100, 1,000 and 5,000 classes of 4 images: about an hour
    python -m benchmarks.many_classes --classes 5000 --memory-mb 2048 --network test_efficientnet

The images are drawn: each class has a smooth pattern of its own, and each image noise on top of it. The stages are
those of dvc.yaml, one process each. Peaks are the kernel's own figure (ru_maxrss), the interpreter and all libraries
included. Expected: `train_head` stays below `train_head.memory_mb`, whatever the number of classes.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.harness import ROOT, arguments, assign, machine, project, result, table

STAGES = [name for name in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"] if name != "sample"]
BUNDLED = "tf_efficientnet_lite0"
_SIDE, _COARSE = 48, 6  # pixels of an image, and of the pattern of a class


def write_images(folder: Path, n_classes: int, n_each: int) -> None:
    """Write class folders of JPEGs."""
    random = np.random.default_rng(0)
    for number in range(n_classes):
        pattern = random.integers(0, 256, (_COARSE, _COARSE, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(pattern).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.int16)
        place = folder / f"class-{number:05d}"
        place.mkdir(parents=True)
        for image in range(n_each):
            noisy = np.clip(smooth + random.normal(0, 40, smooth.shape), 0, 255).astype(np.uint8)
            data = io.BytesIO()
            Image.fromarray(noisy).save(data, "JPEG", quality=90)
            (place / f"{image}.jpg").write_bytes(data.getvalue())


def measured(root: Path, stage: str) -> tuple[float, float]:
    """Run a stage as dvc.yaml does; return its wall time in seconds and its peak memory in MB. It has to succeed."""
    began = time.perf_counter()
    log = root / "log"
    with log.open("wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", f"import os; os.chdir({str(root)!r}); from tasks.__main__ import main;"
             f" raise SystemExit(main([{stage!r}]))"],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1), (os.POSIX_SPAWN_DUP2, file.fileno(), 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{stage} failed:\n{log.read_text()[-3000:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1000 * 1.024


def _shown(found: tuple[float, float] | None) -> str:
    return f"{found[1]:,.0f} MB, {found[0]:.0f} s" if found else ""


def main() -> None:
    """Run every stage for each number of classes."""
    given = arguments(
        __doc__, data=False, classes=[10, 100, 1000, 5000], images=4, memory_mb=4096, network=BUNDLED, stages=""
    )
    wanted = given.stages.split(",") if given.stages else STAGES
    peaks: dict[int, dict[str, tuple[float, float]]] = {}
    for n_classes in given.classes:
        with project() as root:
            write_images(root / "photos", n_classes, given.images)
            weights = "bundled" if given.network == BUNDLED else "random"
            assign(
                root,
                data__root="photos",
                backbone__name=given.network,
                backbone__weights=weights,
                train_head__memory_mb=given.memory_mb,
                export__gate="null",
            )
            peaks[n_classes] = {}
            for stage in STAGES:
                peaks[n_classes][stage] = measured(root, stage)
                seconds, peak_mb = peaks[n_classes][stage]
                print(f"{n_classes} classes, {stage}: {seconds:.1f} s, {peak_mb:.0f} MB", flush=True)
                if stage == wanted[-1]:
                    break
    print(f"\n{given.images} images a class, {given.network}, train_head.memory_mb {given.memory_mb}; {machine()}")
    header = ["stage", *(f"{n_classes:,} classes" for n_classes in peaks)]
    rows = [[stage, *(_shown(found.get(stage)) for found in peaks.values())] for stage in STAGES]
    table(header, rows)
    most = max(found["train_head"][1] for found in peaks.values())
    result("train_head_peak_memory", most, "MB", given.memory_mb, most <= given.memory_mb)


if __name__ == "__main__":
    main()
