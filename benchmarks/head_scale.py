"""Head training on 10 k, 100 k and 1 M rows of 1,280 float16 features from a real feature store: time, peak memory.

The rows are synthetic: clusters of ten classes that overlap. Each size is trained in a process of its own, whose peak
of resident memory is the kernel's own figure (ru_maxrss), the interpreter and all libraries included.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart import params_file
from headstart.base.files import Place
from headstart.heads import sweep
from headstart.heads.design import Source
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import LevelSet
from headstart.onnx.backbone_folder import LAST
from headstart.store import arrays
from headstart.store.shards import Contract, fingerprint
from headstart.store.workers import workers

N_FEATURES, N_CLASSES = 1280, 10
CONTRACT = Contract(fingerprint(made="synthetic"), (1, N_FEATURES), "float16")


def label_of(image_id: str) -> int:
    """Return the class of a row."""
    return int(image_id[:8], 16) % N_CLASSES


def rows_of(wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
    """Return float16 [N, 1, D], drawn from the keys."""
    centres = np.random.default_rng(0).normal(size=(N_CLASSES, N_FEATURES)).astype(np.float32)
    random = np.random.default_rng(int(next(iter(wanted))[:8], 16))
    labels = [label_of(image_id) for image_id in wanted]
    noise = random.standard_normal((len(labels), N_FEATURES), np.float32)
    return np.maximum(0.06 * centres[labels] + noise, 0)[:, None].astype(np.float16)


def image_ids(n_rows: int) -> list[str]:
    """Return as many keys, sorted."""
    return sorted(hashlib.sha256(str(number).encode()).hexdigest() for number in range(n_rows))


def train(folder: Path, n_rows: int, memory_mb: int) -> None:
    """Train on the store as the stage `train_head` does, and print seconds, megabytes and the head's quality."""
    values = params_file.load(ROOT / "params.yaml").train_head
    known = image_ids(n_rows)
    opened = arrays.Store(Place.of(folder), "embed")
    began = time.perf_counter()
    labels = np.array([label_of(image_id) for image_id in known])
    source = Source(arrays.Rows(opened, known, (N_FEATURES,)), None, labels, np.arange(n_rows))
    last = [LevelSet(LAST, (LAST,), np.arange(N_FEATURES))]
    settings = sweep.Settings([*KINDS.values()], last, values.strengths, values.folds, values.seed, memory_mb)
    selection = sweep.select(source, N_CLASSES, settings)
    seconds = time.perf_counter() - began
    chosen = selection.chosen
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * 1.024
    print(json.dumps([seconds, peak_mb, len(selection.validated), chosen.kind, chosen.cv_accuracy]))


def main() -> None:
    """Write a store of each size and train on it."""
    given = arguments(__doc__, data=False, rows=[10_000, 100_000, 1_000_000], memory_mb=2048, train_on="")
    if given.train_on:
        train(Path(given.train_on), given.rows[0], given.memory_mb)
        return
    table_rows, peaks = [], []
    for n_rows in given.rows:
        with tempfile.TemporaryDirectory(prefix="headstart-benchmark-") as name:
            began = time.perf_counter()
            with workers(None) as pool:
                arrays.build(Place.of(Path(name)), dict.fromkeys(image_ids(n_rows), ""), CONTRACT, rows_of, pool)
            built_s = time.perf_counter() - began
            size_mb = sum(path.stat().st_size for path in Path(name).iterdir()) / 1e6
            command = [sys.executable, "-m", "benchmarks.head_scale", "--train-on", name, "--rows", str(n_rows)]
            command += ["--memory-mb", str(given.memory_mb)]
            said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds, peak_mb, n_validated, kind, accuracy = json.loads(said.splitlines()[-1])
        peaks.append(peak_mb)
        table_rows.append([n_rows, size_mb, built_s, seconds, peak_mb, n_validated, kind, accuracy])
        print(f"{n_rows} rows: {seconds:.0f} s, peak {peak_mb:.0f} MB", flush=True)
    print(f"\n{N_FEATURES} float16 features, {N_CLASSES} classes, memory_mb {given.memory_mb}; {machine()}")
    header = [
        "rows",
        "store, MB",
        "writing it, s",
        "training, s",
        "peak, MB",
        "cross-validated",
        "kind",
        "accuracy",
    ]
    table(header, table_rows)
    result("head_seconds_of_the_largest", table_rows[-1][3], "s", None, None)
    result("head_peak_memory", max(peaks), "MB", given.memory_mb, max(peaks) <= given.memory_mb)


if __name__ == "__main__":
    main()
