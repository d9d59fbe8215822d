"""Unit costs of every stage, measured here, and what they come to for 1, 10 and 100 million images.

What an image costs is measured on photographs, on one core. What a million rows cost a single process (the tables, the
planning of a store) is measured on a million synthetic rows. The rest is multiplication; docs/scaling.md reads it.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import ROOT, arguments, assign, machine, multiplied, project, result, run, table
from headstart import params_file
from headstart.base import tables
from headstart.base.reading import Limits
from headstart.embedding import engines, pixels
from headstart.images import decoding, deep, limited
from headstart.layout import Layout
from headstart.listing import list_images
from headstart.looking import Looking
from headstart.onnx import backbone_folder
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import workers
from tasks import split

CORE_HOUR_USD = 0.04  # of a virtual core rented by the hour, 2026; put your own in
TB_MONTH_USD = 23.0  # of an object store
SIZES = (1_000_000, 10_000_000, 100_000_000)


def milliseconds(work: Callable[[Any], object], items: Iterable[Any]) -> float:
    """Return the median milliseconds of `work`, on one thread."""
    found = []
    for item in items:
        began = time.perf_counter()
        work(item)
        found.append((time.perf_counter() - began) * 1000)
    return float(np.median(found))


def image_costs(data: Path, n_images: int) -> dict[str, float]:
    """Return core-milliseconds and bytes of one image."""
    with project() as root:
        multiplied(data, root / "photos", n_images)
        assign(root, data__root="photos")
        for stage in ("validate", "split", "backbone"):
            run(root, "python", "-m", "tasks", stage)
        values = params_file.load(root / "params.yaml")
        layout = Layout.of(root, values)
        folder = layout.images
        known = tables.read(layout.splits, tables.SPLITS, "split").select("image_id", "path").rows()
        listing = list_images(layout.data_root, values.data.root, values.data.layout)
        limits = Limits(values.validate_.max_mb * 1_000_000, values.validate_.timeout_s, outside=False)
        looking = Looking(limited.Reader(limited.Limits()), folder, limits)
        resizing = pixels.planned(layout, deep.ALL_BITS)
        kind = engines.kind("onnxruntime")
        engine = engines.opened(kind, layout.backbone)
        batch = resizing(dict(known[: kind.batch_size]))
        engine(batch)
        n_features = backbone_folder.read(layout.backbone).n_features
        return {
            "validate_ms": milliseconds(lambda found: looking(found, deep.ALL_BITS), listing.found),
            "transform_ms": milliseconds(lambda item: resizing(dict([item])), known),
            "decode_ms": milliseconds(lambda item: decoding.decode((folder / item[1]).read_bytes()), known),
            "embed_ms": milliseconds(lambda _: engine(batch), range(40)) / kind.batch_size,
            "original_bytes": float(np.mean([(folder / path).stat().st_size for _, path in known])),
            "pixels_bytes": float(np.prod(batch.shape[1:])) + 32,
            "features_bytes": n_features * np.dtype(values.embed.dtype).itemsize + 32.0,
        }


def row_costs(n_rows: int) -> dict[str, float]:
    """Return what `n_rows` cost one process: seconds of `split`, of planning a store, of finding it whole; peak MB."""
    identities = sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(n_rows))
    manifest = pl.DataFrame(
        {
            "image_id": identities,
            "path": [f"https://example.org/photos/{each[:32]}.jpg" for each in identities],
            "label": [f"class {int(each[:8], 16) % 10}" for each in identities],
            "group": identities,
            "given_split": pl.Series([None] * n_rows, dtype=pl.String),
            "format": ["JPEG"] * n_rows,
            "width_px": pl.Series([500] * n_rows, dtype=pl.Int32),
            "height_px": pl.Series([375] * n_rows, dtype=pl.Int32),
            "n_bytes": pl.Series([100_000] * n_rows, dtype=pl.Int64),
        }
    )
    with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as name:
        layout = Layout(Path(name))
        tables.write(layout.manifest, manifest, tables.MANIFEST)
        began = time.perf_counter()
        split.run(params_file.load(ROOT / "params.yaml"), layout)
        split_s = time.perf_counter() - began
        known = dict(tables.read(layout.splits, tables.SPLITS, "split").select("image_id", "path").iter_rows())
        contract = Contract(fingerprint(made="nothing"), (1, 8), "float16")

        def zeros(wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
            return np.zeros((len(wanted), 1, 8), np.float16)

        seconds = []
        with workers(None) as pool:
            for _ in range(2):
                began = time.perf_counter()
                arrays.build(layout.plain_features, known, contract, zeros, pool)
                seconds.append(time.perf_counter() - began)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024 / 1000
    return {"split_s": split_s, "plan_s": seconds[0], "nothing_new_s": seconds[1], "peak_mb": peak_mb}


def main() -> None:
    """Measure and multiply."""
    given = arguments(__doc__, images=200, rows=1_000_000, only_rows=0)
    if given.only_rows:
        print(json.dumps(row_costs(given.only_rows)))
        return
    image = image_costs(given.data, given.images)
    command = [sys.executable, "-m", "benchmarks.scaling", "--data", str(given.data), "--only-rows", str(given.rows)]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = json.loads(said.splitlines()[-1])
    print(f"\n{machine()}; core-milliseconds and bytes of an image, medians of {given.images}")
    table(["", "of one image"], [[name, value] for name, value in image.items()])
    print(f"{given.rows} rows in one process")
    table(["", ""], [[name, value] for name, value in rows.items()])

    core_h = {n: n * (image["transform_ms"] + image["embed_ms"]) / 3.6e6 for n in SIZES}
    lines: list[list[object]] = [
        ["transform + embed, core-hours", *(core_h[n] for n in SIZES)],
        ["the same in USD", *(core_h[n] * CORE_HOUR_USD for n in SIZES)],
        ["hours on 64 cores", *(core_h[n] / 64 for n in SIZES)],
        ["hours on 1024 cores", *(core_h[n] / 1024 for n in SIZES)],
        ["validate, hours on 16 cores of one machine", *(n * image["validate_ms"] / 3.6e6 / 16 for n in SIZES)],
        ["originals, TB", *(n * image["original_bytes"] / 1e12 for n in SIZES)],
        ["pixels, TB", *(n * image["pixels_bytes"] / 1e12 for n in SIZES)],
        ["features, TB", *(n * image["features_bytes"] / 1e12 for n in SIZES)],
        ["pixels, USD a month", *(n * image["pixels_bytes"] / 1e12 * TB_MONTH_USD for n in SIZES)],
        ["features, USD a month", *(n * image["features_bytes"] / 1e12 * TB_MONTH_USD for n in SIZES)],
        ["split, hours", *(n / given.rows * rows["split_s"] / 3600 for n in SIZES)],
        ["planning a store, hours", *(n / given.rows * rows["plan_s"] / 3600 for n in SIZES)],
        ["tables and planning, peak GB of one process", *(n / given.rows * rows["peak_mb"] / 1000 for n in SIZES)],
    ]
    table(["images", *(f"{n:,}" for n in SIZES)], lines)
    result("core_hours_of_a_million_images", core_h[SIZES[0]], "h", None, None)
    result("peak_memory_of_a_million_rows", rows["peak_mb"], "MB", None, None)


if __name__ == "__main__":
    main()
