"""Score the head on the held-out test split, and write down everything that a reader may ask about it.

Reads the features of the test split, the head, and what earlier stages say of the data; writes artifacts/evaluation/.
Only this stage and `export` read the test split, and neither chooses or fits anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
import polars as pl

from headstart import graphs, metrics, pixels, report, store, tables
from headstart.errors import DataError
from headstart.files import read_csv, read_json, read_safetensors, write_csv, write_json, write_text
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import say


def predictions_of(test: pl.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pl.DataFrame:
    """Return `tables.PREDICTIONS` for the rows of `test` and float32 [N, C]."""
    best = probabilities.argmax(1)
    return test.select("image_id", "path", "label").with_columns(
        predicted=pl.Series(classes)[best],
        correct=pl.col("label") == pl.Series(classes)[best],
        probability=pl.Series(probabilities.max(1)),
        probabilities=pl.Series(probabilities.tolist(), dtype=pl.List(pl.Float32)),
    )


def majority_label(images_per_class: Mapping[str, Mapping[str, int]], classes: list[str]) -> int:
    """Return the index of the most frequent class of train + val."""
    counts = [images_per_class["train"][name] + images_per_class["val"][name] for name in classes]
    return int(np.argmax(counts))


def before_calibration(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities that the same scores have without the temperature."""
    scores = temperature * np.log(np.maximum(probabilities, np.finfo(np.float32).tiny).astype(np.float64))
    odds = np.exp(scores - scores.max(1, keepdims=True))
    uncalibrated: np.ndarray = odds / odds.sum(1, keepdims=True)
    return uncalibrated


def run(params: Params, layout: Layout) -> None:
    """Predict, score, write."""
    settings = params.evaluate
    test = tables.read(layout.splits, tables.SPLITS, "split").filter(pl.col("split") == "test")
    summary = read_json(layout.split_summary, "split")
    head = read_json(layout.head / "head.json", "train_head")
    weights = read_safetensors(layout.head / "head.safetensors", "train_head")
    classes: list[str] = head["classes"]
    if test.is_empty():
        raise DataError("the test split is empty. Held-out images were expected. Raise split.test_fraction.")

    shards = layout.shards(layout.plain_features, params.cluster.store)
    features = store.Store(layout.plain_features, "embed", shards).read(test["image_id"].to_list())[:, 0]
    session = graphs.session(graphs.to_bytes(graphs.head_graph(weights["weight"], weights["bias"])))
    probabilities = session.run(["probabilities"], {"features": features.astype(np.float32)})[0]
    predictions = predictions_of(test, probabilities, classes)
    labels = test["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    scores = metrics.evaluate(
        labels,
        probabilities,
        test["group"].to_numpy(),
        majority_label=majority_label(summary["images_per_class"], classes),
        bootstrap_samples=settings.bootstrap_samples,
        ece_bins=settings.ece_bins,
        seed=settings.seed,
    )
    confusion = metrics.confusion_matrix(labels, probabilities.argmax(1), len(classes))
    calibrated = metrics.reliability(labels, probabilities, settings.ece_bins)
    raw = before_calibration(probabilities, head["temperature"])
    surest = predictions.filter(~pl.col("correct")).sort("probability", "image_id", descending=[True, False])
    surest = surest.head(settings.gallery_images)
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    source = pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing)
    pictures = source(dict(surest.select("image_id", "path").iter_rows())) if len(surest) else ()
    columns = surest.select("path", "label", "predicted", "probability").get_columns()
    validation = read_json(layout.validation / "summary.json", "validate")

    page = report.render(
        report.Report(
            dataset=PurePath(params.data.root).name,
            form=validation["form"],
            test=scores,
            classes=classes,
            confusion=confusion,
            per_class=metrics.per_class(confusion),
            mistakes=[report.Mistake(*row) for row in zip(*columns, pictures, strict=True)],
            calibrated=calibrated,
            uncalibrated=metrics.reliability(labels, raw, settings.ece_bins),
            images_per_class=summary["images_per_class"],
            notes=summary["notes"],
            warnings=summary["warnings"],
            quarantined=list(read_csv(layout.validation / "quarantine.csv", "validate").iter_rows()),
            candidates=read_csv(layout.head / "candidates.csv", "train_head").to_dicts(),
            head=head,
            backbone=read_json(layout.backbone / "backbone.json", "backbone"),
            data_sha256=validation["data_sha256"],
        )
    )
    tables.write(layout.evaluation / "predictions.parquet", predictions, tables.PREDICTIONS)
    write_csv(layout.evaluation / "confusion.csv", predictions.select("label", "predicted"))
    write_csv(layout.evaluation / "reliability.csv", pl.DataFrame([each._asdict() for each in calibrated]))
    write_json(layout.evaluation / "per_class.json", _by_name(classes, confusion))
    write_json(layout.evaluation / "metrics.json", {"test": scores})
    write_text(layout.evaluation / "report.html", page)
    say(
        f"{scores['accuracy']:.2%} of {scores['n_images']} held-out images right (95 % interval"
        f" {scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%})"
    )


def _by_name(classes: list[str], confusion: np.ndarray) -> dict[str, dict[str, float | None]]:
    scored = zip(classes, metrics.per_class(confusion), strict=True)
    return {
        name: {score: value if value is None else round(value, 6) for score, value in scores._asdict().items()}
        for name, scores in scored
    }
