"""Score the candidates on the held-out test split, and write down everything that a reader may ask about the best one.

Reads the features of the test split, the head, what fine-tuning left, and what earlier stages say of the data; writes
artifacts/evaluation/. Whether the frozen or the fine-tuned backbone ships is decided on validation alone. Only this
stage and `export` read the test split, and neither chooses or fits anything by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from headstart import engines, graphs, metrics, pixels, plots, report, store, tables
from headstart.errors import DataError
from headstart.features import Embedding
from headstart.files import read_csv, read_json, read_safetensors, write_csv, write_json, write_text
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import bar, say, show_image

CANDIDATES = ("frozen", "tuned")


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


class Candidate(NamedTuple):
    """What one way of training says of the test images."""

    probabilities: np.ndarray  # float32 [N, C], calibrated
    temperature: float


def choose(validation: pl.DataFrame, groups: np.ndarray, n_epochs: int) -> dict[str, Any]:
    """Return which candidate ships, why, and the figures: `tables.VALIDATION` and the group of each of its rows.

    The frozen one has the head start: it is simpler and has learned from more images. So the other has to be better by
    more than chance gives to the best of `n_epochs`, which was picked on the same images.
    """
    frozen, tuned = (validation[f"{name}_log_loss"].to_numpy() for name in CANDIDATES)
    lead = metrics.advantage(frozen, tuned, groups)
    pays = lead.is_clear(n_epochs)
    margin = f"{abs(lead.mean):.4f} nats an image, standard error {lead.standard_error:.4f}"
    if pays:
        why = f"Fine-tuning pays: its log loss on validation is lower by {margin}."
    elif lead.mean > 0:
        chance = f"no more than chance gives to the best of {n_epochs} epochs"
        why = f"Fine-tuning does not ship: its log loss on validation is lower, but by {chance} ({margin})."
    else:
        why = f"Fine-tuning does not ship: its log loss on validation is not lower ({margin})."
    figures: dict[str, float | int] = {"n_images": len(validation)}
    for name, losses in zip(CANDIDATES, (frozen, tuned), strict=True):
        figures[f"{name}_log_loss"] = round(float(losses.mean()), 6)
        figures[f"{name}_accuracy"] = round(float(validation[f"{name}_correct"].to_numpy().mean()), 6)
    figures |= {"advantage": round(lead.mean, 6), "standard_error": round(min(lead.standard_error, 1e9), 6)}
    return {"chosen": "tuned" if pays else "frozen", "why": why, "validation": figures}


def run(params: Params, layout: Layout) -> None:
    """Predict, choose, score, write."""
    settings = params.evaluate
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    test = splits.filter(pl.col("split") == "test")
    summary = read_json(layout.split_summary, "split")
    head = read_json(layout.head / "head.json", "train_head")
    finetune = read_json(layout.finetune / "finetune.json", "finetune")
    classes: list[str] = head["classes"]
    if test.is_empty():
        raise DataError("the test split is empty. Held-out images were expected. Raise split.test_fraction.")
    labels = test["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    source = pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing)

    shards = layout.shards(layout.plain_features, params.cluster.store)
    features = store.Store(layout.plain_features, "embed", shards).read(test["image_id"].to_list())[:, 0]
    candidates = {"frozen": Candidate(_answers(layout.head, "train_head", features), head["temperature"])}
    if finetune["enabled"]:
        features = _embedded(layout.finetune, finetune["backbone_onnx_sha256"], source, test)
        candidates["tuned"] = Candidate(_answers(layout.finetune, "finetune", features), finetune["temperature"])

    def scored(candidate: Candidate) -> dict[str, float | int]:
        return metrics.evaluate(
            labels,
            candidate.probabilities,
            test["group"].to_numpy(),
            majority_label=majority_label(summary["images_per_class"], classes),
            bootstrap_samples=settings.bootstrap_samples,
            ece_bins=settings.ece_bins,
            seed=settings.seed,
        )

    of_test = {name: scored(candidate) for name, candidate in candidates.items()}
    choice: dict[str, Any] = {"enabled": finetune["enabled"], "chosen": "frozen", "n_images": head["n_images"]}
    history: list[dict[str, Any]] = []
    if finetune["enabled"]:
        validation = tables.read(layout.finetune / "validation.parquet", tables.VALIDATION, "finetune")
        group_of = dict(splits.select("image_id", "group").iter_rows())
        groups = np.array([group_of[image_id] for image_id in validation["image_id"]])
        choice |= choose(validation, groups, finetune["n_epochs"])
        right = [candidates[name].probabilities.argmax(1) == labels for name in CANDIDATES]
        only_frozen, only_tuned, p_value = metrics.mcnemar(*right)
        choice["test"] = of_test
        choice["mcnemar"] = {
            "only_frozen_right": only_frozen,
            "only_tuned_right": only_tuned,
            "p_value": round(p_value, 6),
        }
        choice["best_epoch"] = finetune["best_epoch"]
        history = read_csv(layout.finetune / "history.csv", "finetune").to_dicts()
        if choice["chosen"] == "tuned":
            choice["n_images"] = finetune["n_train"]
        say(choice["why"])
    chosen, scores = candidates[choice["chosen"]], of_test[choice["chosen"]]
    choice["temperature"] = chosen.temperature

    predictions = predictions_of(test, chosen.probabilities, classes)
    confusion = metrics.confusion_matrix(labels, chosen.probabilities.argmax(1), len(classes))
    calibrated = metrics.reliability(labels, chosen.probabilities, settings.ece_bins)
    raw = before_calibration(chosen.probabilities, chosen.temperature)
    surest = predictions.filter(~pl.col("correct")).sort("probability", "image_id", descending=[True, False])
    surest = surest.head(settings.gallery_images)
    pictures = source(dict(surest.select("image_id", "path").iter_rows())) if len(surest) else ()
    columns = surest.select("path", "label", "predicted", "probability").get_columns()
    validated = read_json(layout.validation / "summary.json", "validate")

    page = report.render(
        report.Report(
            dataset=PurePath(params.data.root).name,
            form=validated["form"],
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
            choice=choice,
            history=history,
            backbone=read_json(layout.backbone / "backbone.json", "backbone"),
            data_sha256=validated["data_sha256"],
        )
    )
    tables.write(layout.evaluation / "predictions.parquet", predictions, tables.PREDICTIONS)
    write_csv(layout.evaluation / "confusion.csv", predictions.select("label", "predicted"))
    write_csv(layout.evaluation / "reliability.csv", pl.DataFrame([each._asdict() for each in calibrated]))
    write_json(layout.evaluation / "per_class.json", _by_name(classes, confusion))
    write_json(layout.evaluation / "metrics.json", {"test": scores})
    write_json(layout.evaluation / "candidates.json", choice)
    write_text(layout.evaluation / "report.html", page)
    show_image("confusion-matrix", lambda: plots.confusion_matrix(confusion, classes), "The held-out images")
    say(
        f"{scores['accuracy']:.2%} of {scores['n_images']} held-out images right (95 % interval"
        f" {scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%})"
    )


def _answers(folder: Path, made_by: str, features: np.ndarray) -> np.ndarray:
    """Return float32 [N, C] of the head in `folder` for features [N, D]."""
    weights = read_safetensors(folder / "head.safetensors", made_by)
    session = graphs.session(graphs.to_bytes(graphs.head_graph(weights["weight"], weights["bias"])))
    probabilities: np.ndarray = session.run(["probabilities"], {"features": features.astype(np.float32)})[0]
    return probabilities


def _embedded(folder: Path, backbone_sha256: str, source: pixels.Source, images: pl.DataFrame) -> np.ndarray:
    """Return float32 [N, D] of the backbone in `folder`, which no store holds."""
    kind = engines.kind("onnxruntime")
    embedding = Embedding(folder, backbone_sha256, kind, kind.batch_size, source, "float32", views=None)
    with bar("embedding", len(images), "image") as advance:
        return embedding(dict(images.select("image_id", "path").iter_rows()), advance)[:, 0]


def _by_name(classes: list[str], confusion: np.ndarray) -> dict[str, dict[str, float | None]]:
    scored = zip(classes, metrics.per_class(confusion), strict=True)
    return {
        name: {score: value if value is None else round(value, 6) for score, value in scores._asdict().items()}
        for name, scores in scored
    }
