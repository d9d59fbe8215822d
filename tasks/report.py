"""Render the page that answers a reader's questions, from what the other stages have written.

Reads almost everything; writes artifacts/evaluation/report.html. Nothing is fitted, chosen or scored here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from headstart.base import tables
from headstart.base.files import read_csv, read_json, read_safetensors, write_text
from headstart.base.progress import bar, say
from headstart.embedding import pixels
from headstart.embedding.views import Views
from headstart.evaluation import metrics
from headstart.heads.graph import head_of
from headstart.heads.learning_curve import Point
from headstart.onnx import pieces, runtime
from headstart.report import feature_space, occlusion, page
from headstart.store import arrays

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_MAX_MAPPED = 1000  # images on a map, every mistake among them if there is room
_N_NEIGHBOURS = 3
_N_SHEET = 8  # images of a class
_N_AUGMENTED = 4  # images of which variants are shown
_N_VARIANTS = 7


@dataclass(frozen=True)
class Read:
    """What several parts of the page are made of."""

    params: Params
    layout: Layout
    predictions: pl.DataFrame  # tables.PREDICTIONS
    training: pl.DataFrame  # tables.SPLITS, of the split train
    features: arrays.Store  # of the frozen backbone
    source: pixels.Source
    classes: list[str]
    chosen: str  # 'frozen' | 'tuned'

    def images(self, rows: pl.DataFrame) -> list[page.Shown]:
        """Return the images of a table with `image_id`, `path` and `label`, in its order."""
        if rows.is_empty():
            return []
        pictures = self.source(dict(rows.select("image_id", "path").iter_rows()))
        named = rows.select("path", "label").iter_rows()
        return [page.Shown(path, label, each) for (path, label), each in zip(named, pictures, strict=True)]


def run(params: Params, layout: Layout) -> None:
    """Read, arrange, render."""
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    summary = read_json(layout.split_summary, "split")
    head = read_json(layout.head / "head.json", "train_head")
    choice = read_json(layout.evaluation / "candidates.json", "evaluate")
    validated = read_json(layout.validation / "summary.json", "validate")
    backbone = read_json(layout.backbone / "backbone.json", "backbone")
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    read = Read(
        params,
        layout,
        tables.read(layout.evaluation / "predictions.parquet", tables.PREDICTIONS, "evaluate"),
        splits.filter(pl.col("split") == "train"),
        arrays.Store(layout.plain_features, "embed", layout.shards(layout.plain_features, params.cluster.store)),
        pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing),
        head["classes"],
        choice["chosen"],
    )
    classes, predictions = read.classes, read.predictions
    labels = predictions["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    probabilities = np.array(predictions["probabilities"].to_list(), np.float32).reshape(len(labels), len(classes))
    predicted = probabilities.argmax(1)
    raw = metrics.before_calibration(probabilities, choice["temperature"])
    mapped = _mapped(predictions)
    augmentation, augmented = _augmentation(read, backbone["preprocessing"])

    text = page.render(
        page.Report(
            dataset=PurePath(params.data.root).name,
            form=validated["form"],
            test=read_json(layout.evaluation / "metrics.json", "evaluate")["test"],
            classes=classes,
            confusion=metrics.confusion_matrix(labels, predicted, len(classes)),
            per_class=_per_class(read_json(layout.evaluation / "per_class.json", "evaluate"), classes),
            comparison=_comparison(read_json(layout.evaluation / "comparison.json", "evaluate")),
            mistakes=_mistakes(read),
            calibrated=metrics.reliability(labels, probabilities, params.evaluate.ece_bins),
            uncalibrated=metrics.reliability(labels, raw, params.evaluate.ece_bins),
            curve=metrics.risk_coverage(probabilities.max(1), predicted == labels),
            maps=_maps(read.features.read(mapped["image_id"].to_list())[:, 0], params),
            mapped=list(zip(read.images(mapped), mapped["predicted"], strict=True)),
            images_per_class=summary["images_per_class"],
            sheets={
                name: [
                    each.pixels for each in read.images(read.training.filter(pl.col("label") == name).head(_N_SHEET))
                ]
                for name in classes[: page.MAX_SHEETS]
            },
            augmentation=augmentation,
            augmented=augmented,
            notes=summary["notes"],
            warnings=summary["warnings"],
            quarantined=list(read_csv(layout.validation / "quarantine.csv", "validate").iter_rows()),
            candidates=read_csv(layout.head / "candidates.csv", "train_head").to_dicts(),
            learning=[Point(**row) for row in read_csv(layout.head / "learning_curve.csv", "train_head").to_dicts()],
            head=head,
            choice=choice,
            history=read_csv(layout.finetune / "history.csv", "finetune").to_dicts() if choice["enabled"] else [],
            backbone=backbone,
            int8=read_json(layout.int8 / "int8.json", "quantize"),
            data_sha256=validated["data_sha256"],
        )
    )
    path = layout.evaluation / "report.html"
    write_text(path, text)
    say(f"{path.relative_to(layout.root)}, {len(text.encode()) / 1e6:.1f} MB")


def _per_class(told: dict[str, dict[str, Any]], classes: list[str]) -> list[metrics.ClassScores]:
    def interval(scores: dict[str, Any], name: str) -> metrics.Interval | None:
        low, high = scores[f"{name}_low"], scores[f"{name}_high"]
        return None if low is None else metrics.Interval(low, high)

    return [
        metrics.ClassScores(
            **{score: told[name][score] for score in ("precision", "recall", "f1", "support", "n_predicted")},
            precision_interval=interval(told[name], "precision"),
            recall_interval=interval(told[name], "recall"),
        )
        for name in classes
    ]


def _comparison(told: dict[str, Any]) -> page.Comparison | None:
    if told["accepted"] is None:
        return None
    of_it = told["accepted"]
    return page.Comparison(
        of_it["version"],
        of_it["accuracy"],
        metrics.Interval(of_it["accuracy_low"], of_it["accuracy_high"]),
        told["only_accepted_right"],
        told["only_new_right"],
        told["p_value"],
        told["why"],
    )


def _mistakes(read: Read) -> list[page.Mistake]:
    """Return the surest mistakes, the first ones with the training images that are most like them."""
    surest = read.predictions.filter(~pl.col("correct")).sort("probability", "image_id", descending=[True, False])
    surest = surest.head(read.params.report.gallery_images)
    if surest.is_empty():
        return []
    close = surest.head(page.MAX_WITH_NEIGHBOURS)
    rows = arrays.Rows(read.features, read.training["image_id"].to_list(), read.features.contract.row_shape[1:])
    nearest = feature_space.nearest(read.features.read(close["image_id"].to_list())[:, 0], rows, _N_NEIGHBOURS)
    neighbours = [read.images(read.training[numbers]) for numbers in nearest]
    pictures = read.images(surest)
    heats: list[np.ndarray | None] = [None] * len(surest)
    if read.params.report.overlays:
        answer = _answering(read.layout, read.chosen)
        with bar("overlays", len(close), "image") as advance:
            for row, name in enumerate(close["predicted"]):
                heats[row] = occlusion.occlusion(pictures[row].pixels, answer, read.classes.index(name))
                advance(1)
    named = zip(pictures, surest["predicted"], surest["probability"], strict=True)
    return [
        page.Mistake(image, name, probability, neighbours[row] if row < len(neighbours) else (), heats[row])
        for row, (image, name, probability) in enumerate(named)
    ]


def _answering(layout: Layout, chosen: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of uint8 [N, S, S, 3] that gives the probabilities of the model that ships."""
    trained_in, trained_by = (layout.finetune, "finetune") if chosen == "tuned" else (layout.head, "train_head")
    backbone = runtime.session((layout.finetune if chosen == "tuned" else layout.backbone) / "backbone.onnx")
    head = runtime.session(pieces.to_bytes(head_of(read_safetensors(trained_in / "head.safetensors", trained_by))))

    def answer(images: np.ndarray) -> np.ndarray:
        found = backbone.run(None, {"pixels": images})[0]
        probabilities: np.ndarray = head.run(["probabilities"], {"features": found})[0]
        return probabilities

    return answer


def _mapped(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the images of the maps: all of few, else the mistakes and an even part of the others."""
    if len(predictions) <= _MAX_MAPPED:
        return predictions
    wrong = predictions.filter(~pl.col("correct")).head(_MAX_MAPPED // 2)
    others = predictions.filter("correct").sort("image_id")  # hashes: their order says nothing
    return pl.concat([others.head(_MAX_MAPPED - len(wrong)), wrong])


def _maps(found: np.ndarray, params: Params) -> list[page.Map]:
    if len(found) < 3:
        return []
    maps = [page.Map("pca", feature_space.pca(found))]
    if params.report.umap:
        maps.append(page.Map("umap", feature_space.umap(found, params.report.seed)))
    return maps


def _augmentation(read: Read, preprocessing: dict[str, Any]) -> tuple[str, list[list[np.ndarray]]]:
    """Return in words how training images were varied, and some images with variants of each."""
    settings, input_px = read.params.finetune, preprocessing["input_px"]
    if read.chosen == "tuned":
        from headstart.tuning.augment import Augmentation

        chosen = Augmentation(
            settings.seed,
            input_px,
            preprocessing["interpolation"],
            tuple(preprocessing["mean"]),
            settings.crop_area,
            settings.flip,
            settings.policy,
            settings.erasing,
        )
        what = f"crops of {100 * settings.crop_area:g} % to 100 % of the area"
        what += ", mirrored or not" if settings.flip else ""
        what += f", {settings.policy} augmentation" if settings.policy != "none" else ""
        what += ", parts erased" if settings.erasing else ""
        often = f"{settings.views} views of each, in turn" if settings.views else "a new view in every epoch"

        def variants(pixels: np.ndarray, image_id: str) -> list[np.ndarray]:
            views = [chosen.view(pixels, image_id, draw).numpy() for draw in range(settings.views or _N_VARIANTS)]
            return [np.ascontiguousarray(view.transpose(1, 2, 0)) for view in views[:_N_VARIANTS]]

    elif read.params.embed.views:
        drawn = Views(read.params.embed.views, read.params.embed.seed, input_px, preprocessing["interpolation"])
        what, often = "crops of 25 % to 100 % of the area, mirrored or not", f"{drawn.n_views} views beside each image"

        def variants(pixels: np.ndarray, image_id: str) -> list[np.ndarray]:
            return list(drawn.of(pixels, image_id)[:_N_VARIANTS])

    else:
        return "Not at all: the head has seen each training image once, as it is.", []
    few = read.training.head(_N_AUGMENTED)
    pictures = [each.pixels for each in read.images(few)]
    return f"By {what}; {often}. The first picture of a row is the image as it is.", [
        [pixels, *variants(pixels, image_id)] for image_id, pixels in zip(few["image_id"], pictures, strict=True)
    ]
