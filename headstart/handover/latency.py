"""Measures latency on this machine: percentiles, because users notice the slow answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

BATCHES = (1, 8, 32)
_SECONDS = 2.0  # least duration of a measurement
_FEWEST = 20
_WARM_UP = 3


class Latency(NamedTuple):
    """The latency at one batch size and number of threads."""

    what: str
    batch: int  # images per call
    threads: int
    p50_ms: float  # per call
    p95_ms: float
    p99_ms: float
    images_a_second: float  # by the median


def measure(
    what: str, answer: Callable[[np.ndarray], object], images: np.ndarray, threads: int, seconds: float = _SECONDS
) -> Latency:
    """Call `answer` with uint8 [N, H, W, 3] for at least `seconds`; return the latency of the calls."""
    for _ in range(_WARM_UP):
        answer(images)
    times: list[float] = []
    while len(times) < _FEWEST or sum(times) < seconds:
        began = time.perf_counter()
        answer(images)
        times.append(time.perf_counter() - began)
    p50, p95, p99 = (round(1e3 * float(each), 2) for each in np.percentile(times, [50, 95, 99]))
    return Latency(what, len(images), threads, p50, p95, p99, round(1e3 * len(images) / p50, 1))
