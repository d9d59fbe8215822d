"""Try the backbone that ships in 8-bit integers, and keep the fastest way that loses next to no accuracy.

Reads the pixels and the chosen candidate's pieces; writes artifacts/int8/. Ranges are calibrated on training images and
accuracies compared on validation, by a head that has not learned from it; the test split has no part in it. Off unless
export.int8.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.base.files import read_json, read_safetensors, replacing_folder, write_json
from headstart.base.progress import bar, say, show_table, warn
from headstart.embedding import pixels
from headstart.handover import quantization
from headstart.onnx import runtime

if TYPE_CHECKING:
    import polars as pl

    from headstart.layout import Layout
    from headstart.params import Params

_NOT_POSSIBLE = "No int8 model is shipped: onnxruntime cannot quantise this backbone ({})."
_BATCH_IMAGES = 16
_N_TIMED = 40


def run(params: Params, layout: Layout) -> None:
    """Read, try, judge, write."""
    choice = read_json(layout.evaluation / "candidates.json", "evaluate")
    is_tuned = choice["chosen"] == "tuned"
    trained_in, trained_by = (layout.finetune, "finetune") if is_tuned else (layout.head, "train_head")
    backbone = (layout.finetune if is_tuned else layout.backbone) / "backbone.onnx"
    head_file = trained_in / "head.safetensors"
    pieces = (layout.backbone / "resize.onnx", backbone, head_file)
    record: dict[str, Any] = {"float_bytes": sum(piece.stat().st_size for piece in pieces), "tries": []}
    if not params.export.int8:
        with replacing_folder(layout.int8) as folder:
            why = "No int8 model is shipped, since none was tried: export.int8 is false."
            write_json(folder / "int8.json", {"chosen": None, "why": why, **record})
        say("off; export.int8 in params.yaml turns it on")
        return
    tuned = read_safetensors(head_file, trained_by) if is_tuned else None
    _try_all(params, layout, record, backbone, tuned)


def _try_all(
    params: Params, layout: Layout, record: dict[str, Any], backbone: Path, tuned: dict[str, np.ndarray] | None
) -> None:
    """Write int8.json, and backbone.int8.onnx if a way is good enough; `tuned` holds the head of a tuned backbone."""
    import polars as pl

    from headstart.base import tables

    splits = tables.read(layout.splits, tables.SPLITS, "split")
    told = read_json(layout.head / "head.json", "train_head")
    classes: list[str] = told["classes"]
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    source = pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing)
    val = splits.filter(pl.col("split") == "val")
    train = splits.filter(pl.col("split") == "train").sort("image_id")
    some = train.head(quantization.N_CALIBRATION)
    calibration = source(dict(some.select("image_id", "path").iter_rows()))
    head = (tuned["weight"], tuned["bias"]) if tuned else _head_of_train(params, layout, train, told)
    judge = Judge(source, val, classes, *head)
    in_float = judge(runtime.session(backbone))
    allowed = params.export.int8_max_accuracy_drop

    tries: list[dict[str, Any]] = []
    models: list[bytes] = []
    failure = ""
    try:
        with bar("quantising", len(quantization.WAYS), "way") as advance:
            for way, model in quantization.quantised(backbone, calibration):
                session = runtime.session(model)
                right = judge(session)
                lost, at_most = quantization.drop(in_float, right, val["group"].to_numpy())
                tries.append(
                    {
                        "name": str(way),
                        "accuracy": round(float(right.mean()), 6),
                        "drop": round(lost, 6),
                        "drop_high": round(at_most, 6),
                        "is_acceptable": at_most <= allowed,
                        "speedup": round(speedup(runtime.session(backbone), session, calibration[:1]), 3),
                        "n_bytes": len(model),
                        "chosen": False,
                    }
                )
                models.append(model)
                advance(1)
    except quantization.QuantizationError as error:
        failure = str(error)
        warn(f"onnxruntime gave up after {len(tries)} of {len(quantization.WAYS)} ways: {failure}")
    chosen, why = choose(tries, allowed, len(val)) if tries else (None, _NOT_POSSIBLE.format(failure))
    if chosen is not None:
        tries[chosen]["chosen"] = True
    with replacing_folder(layout.int8) as folder:
        if chosen is not None:
            (folder / "backbone.int8.onnx").write_bytes(models[chosen])
        write_json(
            folder / "int8.json",
            {
                "chosen": None if chosen is None else tries[chosen]["name"],
                "why": why,
                **record,
                "tries": tries,
                "float_accuracy": round(float(in_float.mean()), 6),
                "n_images": len(val),
                "n_calibration": len(some),
                "max_accuracy_drop": allowed,
                "cpu": quantization.instruction_set(),
            },
        )
    if tries:
        show_table("int8", tries, "Ways to quantise; drops of accuracy are on validation")
    say(why)


def _head_of_train(
    params: Params, layout: Layout, train: pl.DataFrame, told: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of the head on train alone: the one that ships has learned from validation images too."""
    from headstart.heads import sweep
    from headstart.store import arrays

    plain = arrays.Store(layout.plain_features, "embed", layout.shards(layout.plain_features, params.cluster.store))
    features = arrays.Rows(plain, train["image_id"].to_list(), plain.contract.row_shape[1:])
    labels = np.array([told["classes"].index(label) for label in train["label"]], np.int64)
    fits = 4e-6 * len(train) * features.shape[1] < params.train_head.memory_mb - sweep.PROCESS_MB
    return sweep.fit(features, labels, len(told["classes"]), told["strength"], hold=fits)


class Judge:
    """Says which validation images a backbone's features lead the head to name rightly."""

    def __init__(
        self, source: pixels.Source, val: pl.DataFrame, classes: list[str], weight: np.ndarray, bias: np.ndarray
    ) -> None:
        self._source, self._weight, self._bias = source, weight, bias
        self._where = list(val.select("image_id", "path").iter_rows())
        self._labels = np.array([classes.index(label) for label in val["label"]], np.int64)

    def __call__(self, backbone: Any) -> np.ndarray:
        """Return bool [N]."""
        named = [np.empty(0, np.int64)]
        for first in range(0, len(self._where), _BATCH_IMAGES):
            shown = self._source(dict(self._where[first : first + _BATCH_IMAGES]))
            features = backbone.run(None, {"pixels": shown})[0]
            named.append((features @ self._weight + self._bias).argmax(1))
        right: np.ndarray = np.concatenate(named) == self._labels
        return right


def speedup(in_float: Any, in_int8: Any, image: np.ndarray) -> float:
    """Return how many times as fast the second session is for uint8 [1, S, S, 3]: medians, taken by turns."""
    seconds: list[list[float]] = [[], []]
    for _ in range(_N_TIMED):
        for session, times in zip((in_float, in_int8), seconds, strict=True):
            began = time.perf_counter()
            session.run(None, {"pixels": image})
            times.append(time.perf_counter() - began)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


def choose(tries: list[dict[str, Any]], allowed: float, n_images: int) -> tuple[int | None, str]:
    """Return the number of the fastest acceptable try, None if there is none, and why."""
    acceptable = [number for number, each in enumerate(tries) if each["is_acceptable"]]
    if not acceptable:
        closest = min(tries, key=lambda each: each["drop_high"])
        needed = int(np.ceil(quantization.Z / allowed)) if allowed else 0
        hint = (
            f" {n_images} validation images cannot show more even without a single loss; {needed} could."
            if allowed and n_images < needed - 2
            else ""
        )
        return None, (
            f"No int8 model is shipped: the closest of {len(tries)} ways may lose up to {closest['drop_high']:.2%} of"
            f" accuracy, and {allowed:.2%} are allowed.{hint} export.int8_max_accuracy_drop sets that."
        )
    fastest = max(acceptable, key=lambda number: tries[number]["speedup"])
    found = tries[fastest]
    if found["speedup"] <= 1:
        return None, (
            f"No int8 model is shipped: the fastest acceptable way has {found['speedup']:.2f} times the speed of"
            " float32 on this processor."
        )
    return fastest, (
        f"An int8 model is shipped: {found['speedup']:.2f} times as fast as float32, and at most"
        f" {found['drop_high']:.2%} of accuracy lost ({found['name']})."
    )
