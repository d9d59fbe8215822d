"""Tries every way to quantise a backbone, judges it on validation images, and chooses the one that ships, if any."""

from __future__ import annotations

import hashlib
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
Scores = Callable[[np.ndarray], np.ndarray]  # features float32 [N, D] -> [N, C]; the highest is the head's answer


@dataclass(frozen=True)
class Outcome:
    """What was tried, which way ships and why."""

    tries: list[Try]
    model: bytes | None  # the one that ships
    why: str
    float_accuracy: float
    n_images: int
    n_calibration: int
    allowed: float

    def record(self, float_bytes: int) -> Int8Record:
        """Return the record of int8.json."""
        chosen = next((each.name for each in self.tries if each.chosen), None)
        trial = Trial(
            tries=self.tries,
            float_accuracy=round(self.float_accuracy, 6),
            n_images=self.n_images,
            n_calibration=self.n_calibration,
            max_accuracy_drop=self.allowed,
            cpu=quantization.instruction_set(),
        )
        digest = hashlib.sha256(self.model).hexdigest() if self.model else None
        return Int8Record(chosen=chosen, backbone_sha256=digest, why=self.why, float_bytes=float_bytes, trial=trial)


class Judge:
    """Tells which validation images the head classifies correctly by a backbone's features."""

    def __init__(self, source: Source, val: Images, head: Scores) -> None:
        self.val = val
        self._source, self._head, self._where = source, head, list(val.where.items())

    def __call__(self, backbone: Any) -> np.ndarray:
        """Return whether each image is right, bool [N], for a session of the backbone."""
        named = [np.empty(0, np.int64)]
        for first in range(0, len(self._where), _BATCH_IMAGES):
            shown = self._source(dict(self._where[first : first + _BATCH_IMAGES]))
            named.append(self._head(backbone.run(None, {"pixels": shown})[0]).argmax(1))
        right: np.ndarray = np.concatenate(named) == self.val.labels
        return right


def onnx_head(head: Path) -> Scores:
    """Return the scores of a head.onnx: its probabilities, which rank classes as its scores do."""
    session = runtime.session(head)

    def scores(features: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(["probabilities"], {"features": features})[0]
        return found

    return scores


def try_every_way(backbone: bytes, calibration: np.ndarray, judge: Judge, allowed: float) -> Outcome:
    """Quantise `backbone` in every way and choose the fastest that is good enough.

    `calibration` uint8 [N, S, S, 3], training images; `allowed`: the largest acceptable drop of accuracy, 0..1.
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
        warn(f"onnxruntime failed after {len(tries)} of {len(quantization.WAYS)} ways: {failure}")
    chosen, why = choose(tries, allowed, len(judge.val))
    if not tries:
        why = f"No int8 model is shipped: onnxruntime cannot quantise this backbone ({failure})."
    told = [each.model_copy(update={"chosen": number == chosen}) for number, each in enumerate(tries)]
    best = None if chosen is None else models[chosen]
    return Outcome(told, best, why, float(in_float.mean()), len(judge.val), len(calibration), allowed)


def _tried(
    backbone: bytes, calibration: np.ndarray, judge: Judge, in_float: np.ndarray, allowed: float
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
    """Return how many times as fast the second session is for uint8 [1, S, S, 3], by medians of alternate runs."""
    seconds: list[list[float]] = [[], []]
    for _ in range(_N_TIMED):
        for session, times in zip((in_float, in_int8), seconds, strict=True):
            began = time.perf_counter()
            session.run(None, {"pixels": image})
            times.append(time.perf_counter() - began)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def choose(tries: Sequence[Try], allowed: float, n_images: int) -> tuple[int | None, str]:
    """Return the index of the fastest acceptable try, None if there is none, and the reason."""
    acceptable = [number for number, each in enumerate(tries) if each.is_acceptable]
    if not acceptable:
        closest = min((each.drop_high for each in tries), default=1.0)
        needed = int(np.ceil(quantization.Z / allowed)) if allowed else 0
        hint = (
            f" {n_images} validation images are too few to show this even without a single loss; {needed} are enough."
            if allowed and n_images < needed - 2
            else ""
        )
        return None, (
            f"No int8 model is shipped: the best of {len(tries)} ways may lose up to {closest:.2%} of accuracy, but"
            f" only {allowed:.2%} is allowed.{hint} export.int8_max_accuracy_drop in params.yaml sets the limit."
        )
    fastest = max(acceptable, key=lambda number: tries[number].speedup)
    found = tries[fastest]
    if found.speedup <= 1:
        return None, (
            f"No int8 model is shipped: the fastest acceptable way has {found.speedup:.2f} times the speed of float32"
            " on this processor."
        )
    return fastest, (
        f"An int8 model is shipped: it is {found.speedup:.2f} times as fast as float32 and loses at most"
        f" {found.drop_high:.2%} of accuracy ({found.name})."
    )
