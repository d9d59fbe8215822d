"""Every way to quantise a backbone, judged on validation images, and the one that ships, if any is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.dataset import Images
from headstart.base.progress import bar, warn
from headstart.embedding.pixels import Source
from headstart.handover import quantization
from headstart.handover.folder import Int8Record, Trial, Try
from headstart.onnx import runtime

_BATCH_IMAGES = 16
_N_TIMED = 40
Scores = Callable[[np.ndarray], np.ndarray]  # float32 [N, D] -> [N, C], the highest where the head's answer is


@dataclass(frozen=True)
class Outcome:
    """What was tried, which way ships and why."""

    tries: list[Try]
    model: bytes | None  # of the way that ships
    why: str
    float_accuracy: float
    n_images: int
    n_calibration: int
    allowed: float

    def record(self, float_bytes: int) -> Int8Record:
        """Return what int8.json says."""
        chosen = next((each.name for each in self.tries if each.chosen), None)
        trial = Trial(
            tries=self.tries,
            float_accuracy=round(self.float_accuracy, 6),
            n_images=self.n_images,
            n_calibration=self.n_calibration,
            max_accuracy_drop=self.allowed,
            cpu=quantization.instruction_set(),
        )
        return Int8Record(chosen=chosen, why=self.why, float_bytes=float_bytes, trial=trial)


class Judge:
    """Says which validation images a backbone's features lead the head to name rightly."""

    def __init__(self, source: Source, val: Images, head: Scores) -> None:
        self.val = val
        self._source, self._head, self._where = source, head, list(val.where.items())

    def __call__(self, backbone: Any) -> np.ndarray:
        """Return bool [N] for a session of the backbone."""
        named = [np.empty(0, np.int64)]
        for first in range(0, len(self._where), _BATCH_IMAGES):
            shown = self._source(dict(self._where[first : first + _BATCH_IMAGES]))
            named.append(self._head(backbone.run(None, {"pixels": shown})[0]).argmax(1))
        right: np.ndarray = np.concatenate(named) == self.val.labels
        return right


def onnx_head(head: Path) -> Scores:
    """Return the scores of a head.onnx: its probabilities, whose order is that of its scores."""
    session = runtime.session(head)

    def scores(features: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(["probabilities"], {"features": features})[0]
        return found

    return scores


def try_every_way(backbone: Path, calibration: np.ndarray, judge: Judge, allowed: float) -> Outcome:
    """Quantise `backbone` in every way and choose the fastest that is good enough.

    `calibration` uint8 [N, S, S, 3], training images; `allowed`: the drop of accuracy that may not be exceeded, 0..1.
    """
    in_float = judge(runtime.session(backbone))
    tries: list[Try] = []
    models: list[bytes] = []
    failure = ""
    try:
        with bar("quantising", len(quantization.WAYS), "way") as advance:
            for each, model in _tried(backbone, calibration, judge, in_float, allowed):
                tries.append(each)
                models.append(model)
                advance(1)
    except quantization.QuantizationError as error:
        failure = str(error)
        warn(f"onnxruntime gave up after {len(tries)} of {len(quantization.WAYS)} ways: {failure}")
    chosen, why = choose(tries, allowed, len(judge.val))
    if not tries:
        why = f"No int8 model is shipped: onnxruntime cannot quantise this backbone ({failure})."
    told = [each.model_copy(update={"chosen": number == chosen}) for number, each in enumerate(tries)]
    best = None if chosen is None else models[chosen]
    return Outcome(told, best, why, float(in_float.mean()), len(judge.val), len(calibration), allowed)


def _tried(
    backbone: Path, calibration: np.ndarray, judge: Judge, in_float: np.ndarray, allowed: float
) -> Iterator[tuple[Try, bytes]]:
    for way, model in quantization.quantised(backbone, calibration):
        session = runtime.session(model)
        right = judge(session)
        lost, at_most = quantization.drop(in_float, right, judge.val.groups)
        one = Try(
            name=str(way),
            accuracy=round(float(right.mean()), 6),
            drop=round(lost, 6),
            drop_high=round(at_most, 6),
            is_acceptable=at_most <= allowed,
            speedup=round(speedup(runtime.session(backbone), session, calibration[:1]), 3),
            n_bytes=len(model),
            chosen=False,
        )
        yield one, model


def speedup(in_float: Any, in_int8: Any, image: np.ndarray) -> float:
    """Return how many times as fast the second session is for uint8 [1, S, S, 3]: medians, taken by turns."""
    seconds: list[list[float]] = [[], []]
    for _ in range(_N_TIMED):
        for session, times in zip((in_float, in_int8), seconds, strict=True):
            began = time.perf_counter()
            session.run(None, {"pixels": image})
            times.append(time.perf_counter() - began)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def choose(tries: Sequence[Try], allowed: float, n_images: int) -> tuple[int | None, str]:
    """Return the number of the fastest acceptable try, None if there is none, and why."""
    acceptable = [number for number, each in enumerate(tries) if each.is_acceptable]
    if not acceptable:
        closest = min((each.drop_high for each in tries), default=1.0)
        needed = int(np.ceil(quantization.Z / allowed)) if allowed else 0
        hint = (
            f" {n_images} validation images cannot show more even without a single loss; {needed} could."
            if allowed and n_images < needed - 2
            else ""
        )
        return None, (
            f"No int8 model is shipped: the closest of {len(tries)} ways may lose up to {closest:.2%} of accuracy, and"
            f" {allowed:.2%} are allowed.{hint} export.int8_max_accuracy_drop sets that."
        )
    fastest = max(acceptable, key=lambda number: tries[number].speedup)
    found = tries[fastest]
    if found.speedup <= 1:
        return None, (
            f"No int8 model is shipped: the fastest acceptable way has {found.speedup:.2f} times the speed of float32"
            " on this processor."
        )
    return fastest, (
        f"An int8 model is shipped: {found.speedup:.2f} times as fast as float32, and at most {found.drop_high:.2%} of"
        f" accuracy lost ({found.name})."
    )
