"""How long a backbone takes for an image on this machine: measured once, and then known."""

from __future__ import annotations

import platform
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.errors import CheckError
from headstart.base.records import Record
from headstart.onnx import runtime
from headstart.onnx.backbone_folder import BACKBONE, BackboneRecord
from headstart.store.shards import fingerprint

if TYPE_CHECKING:
    from headstart.store.cache import Cache

THREADS = 1
_VERSION = "1"  # raise it when an edit changes what is measured
_SECONDS, _FEWEST, _WARM_UP = 0.25, 12, 2
_TIMES = "times"


class Measured(Record):
    """times.json in the cache."""

    milliseconds: float  # of a processor, for one image, by onnxruntime on one thread: the fastest of many calls
    processor: str
    runtime: str


def milliseconds(folder: Path, record: BackboneRecord, cache: Cache) -> Measured:
    """Return the time of backbone.onnx in `folder` for one image, from the cache if it was measured here before.

    The processor time of the fastest call counts, which other work on the machine disturbs least: on a quiet machine it
    is the time that passes. What was measured once stays, so that a ranking comes out the same when it is repeated.
    """
    here = Measured(milliseconds=0.0, processor=processor(), runtime=f"onnxruntime {version('onnxruntime')}")
    made_for = fingerprint(
        version=_VERSION, backbone=record.backbone_onnx_sha256, processor=here.processor, runtime=here.runtime
    )
    with TemporaryDirectory() as beside:
        kept = Path(beside) / "kept"
        if cache.take(_TIMES, made_for, kept, _is_sound):
            return Measured.read(kept / "times.json", "rank")
        found = here.model_copy(update={"milliseconds": round(1e3 * _fastest(folder, record), 3)})
        new = Path(beside) / "new"
        new.mkdir()
        found.write(new / "times.json")
        cache.put(_TIMES, made_for, new)
    return found


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _fastest(folder: Path, record: BackboneRecord) -> float:
    """Return the seconds of a processor that the fastest of many calls took. One thread works: the one that calls."""
    session = runtime.session(folder / BACKBONE, THREADS)
    side = record.preprocessing.resize_px
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    times: list[float] = []
    while len(times) < _FEWEST + _WARM_UP or sum(times) < _SECONDS:
        began = time.thread_time()
        session.run(None, {"pixels": image})
        times.append(time.thread_time() - began)
    return min(times[_WARM_UP:])


def _is_sound(folder: Path) -> bool:
    try:
        return Measured.read(folder / "times.json", "rank").milliseconds > 0
    except CheckError:
        return False
