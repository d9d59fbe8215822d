"""Score the candidates on the held-out test split, and write down everything that a reader may ask about the best one.

Reads the features of the test split, the head, what fine-tuning left, and what earlier stages say of the data; writes
artifacts/evaluation/. Whether the frozen or the fine-tuned backbone ships is decided on validation alone. Only this
stage and `export` read the test split, and neither chooses or fits anything by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from headstart import images
from headstart.base import tables
from headstart.base.cores import n_cores
from headstart.base.errors import DataError
from headstart.base.files import located, read_json, read_safetensors, write_csv, write_json
from headstart.base.progress import bar, say, show_image
from headstart.embedding import engines, pixels
from headstart.embedding.features import Embedding
from headstart.evaluation import accepted, confusion_plot, metrics
from headstart.heads.graph import head_of
from headstart.onnx import pieces, runtime
from headstart.store import arrays

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

CANDIDATES = ("frozen", "tuned")
_MAX_POINTS = 200  # of the risk-coverage curve


def predictions_of(
    test: pl.DataFrame, probabilities: np.ndarray, novelty: np.ndarray, classes: list[str]
) -> pl.DataFrame:
    """Return `tables.PREDICTIONS` for the rows of `test`, float32 [N, C] and float32 [N]."""
    best = probabilities.argmax(1)
    return test.select("image_id", "path", "label").with_columns(
        predicted=pl.Series(classes)[best],
        correct=pl.col("label") == pl.Series(classes)[best],
        probability=pl.Series(probabilities.max(1)),
        probabilities=pl.Series(probabilities.tolist(), dtype=pl.List(pl.Float32)),
        novelty=pl.Series(novelty),
    )


def majority_label(images_per_class: Mapping[str, Mapping[str, int]], classes: list[str]) -> int:
    """Return the index of the most frequent class of train + val."""
    counts = [images_per_class["train"][name] + images_per_class["val"][name] for name in classes]
    return int(np.argmax(counts))


class Candidate(NamedTuple):
    """What one way of training says of the test images."""

    probabilities: np.ndarray  # float32 [N, C], calibrated
    novelty: np.ndarray  # float32 [N]
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
    features = arrays.Store(layout.plain_features, "embed", shards).read(test["image_id"].to_list())[:, 0]
    candidates = {"frozen": _candidate(layout.head, "train_head", features, head["temperature"])}
    if finetune["enabled"]:
        features = _embedded(layout.finetune, finetune["backbone_onnx_sha256"], source, test)
        candidates["tuned"] = _candidate(layout.finetune, "finetune", features, finetune["temperature"])

    def scored(candidate: Candidate) -> metrics.Evaluation:
        return metrics.evaluate(
            labels,
            candidate.probabilities,
            test["group"].to_numpy(),
            majority_label=majority_label(summary["images_per_class"], classes),
            bootstrap_samples=settings.bootstrap_samples,
            ece_bins=settings.ece_bins,
            seed=settings.seed,
        )

    evaluations = {name: scored(candidate) for name, candidate in candidates.items()}
    of_test = {name: evaluation.scores for name, evaluation in evaluations.items()}
    choice: dict[str, Any] = {"enabled": finetune["enabled"], "chosen": "frozen", "n_images": head["n_images"]}
    if finetune["enabled"]:
        right = [candidates[name].probabilities.argmax(1) == labels for name in CANDIDATES]
        choice |= _choice_between(right, of_test, splits, finetune, layout)
        say(choice["why"])
    chosen = candidates[choice["chosen"]]
    scores: dict[str, float | None] = {**of_test[choice["chosen"]]}
    choice["temperature"] = chosen.temperature

    threshold = metrics.abstain_threshold(*_held_out_answers(choice["chosen"], layout), settings.wanted_accuracy)
    raw = metrics.reliability(
        labels, metrics.before_calibration(chosen.probabilities, chosen.temperature), settings.ece_bins
    )
    scores |= abstaining(chosen.probabilities, labels, threshold, settings.wanted_accuracy)
    scores["ece_before"] = round(metrics.expected_calibration_error(raw), 6)

    predictions = predictions_of(test, chosen.probabilities, chosen.novelty, classes)
    predicted = chosen.probabilities.argmax(1)
    confusion = metrics.confusion_matrix(labels, predicted, len(classes))
    calibrated = metrics.reliability(labels, chosen.probabilities, settings.ece_bins)
    curve = metrics.risk_coverage(chosen.probabilities.max(1), predicted == labels)

    compared: dict[str, Any] = {"accepted": None}
    if params.export.gate:
        compared = _compared(params.export.gate, predictions, test["group"].to_numpy(), params, layout)
        say(compared["why"])
    tables.write(layout.evaluation / "predictions.parquet", predictions, tables.PREDICTIONS)
    write_csv(layout.evaluation / "confusion.csv", predictions.select("label", "predicted"))
    write_csv(layout.evaluation / "reliability.csv", pl.DataFrame([each._asdict() for each in calibrated]))
    write_csv(layout.evaluation / "risk_coverage.csv", _thinned(curve))
    write_json(layout.evaluation / "per_class.json", by_name(classes, evaluations[choice["chosen"]].per_class))
    write_json(layout.evaluation / "metrics.json", {"test": scores})
    write_json(layout.evaluation / "candidates.json", choice)
    write_json(layout.evaluation / "comparison.json", compared)
    show_image("confusion-matrix", lambda: confusion_plot.confusion_matrix(confusion, classes), "The held-out images")
    say(
        f"{scores['accuracy']:.2%} of {scores['n_images']} held-out images right (95 % interval"
        f" {scores['accuracy_low']:.2%} to {scores['accuracy_high']:.2%})"
    )


def _choice_between(
    right: list[np.ndarray],
    of_test: dict[str, dict[str, float | int]],
    splits: pl.DataFrame,
    finetune: dict[str, Any],
    layout: Layout,
) -> dict[str, Any]:
    """Return what candidates.json says where there are two: bool [N] each, and the scores, are of the test images."""
    validation = tables.read(layout.finetune / "validation.parquet", tables.VALIDATION, "finetune")
    group_of = dict(splits.select("image_id", "group").iter_rows())
    groups = np.array([group_of[image_id] for image_id in validation["image_id"]])
    choice = choose(validation, groups, finetune["n_epochs"])
    only_frozen, only_tuned, p_value = metrics.mcnemar(*right)
    choice["test"] = of_test
    choice["mcnemar"] = {
        "only_frozen_right": only_frozen,
        "only_tuned_right": only_tuned,
        "p_value": round(p_value, 6),
    }
    choice["best_epoch"] = finetune["best_epoch"]
    if choice["chosen"] == "tuned":
        choice["n_images"] = finetune["n_train"]
    return choice


def _compared(
    version: str, predictions: pl.DataFrame, groups: np.ndarray, params: Params, layout: Layout
) -> dict[str, Any]:
    """Run the accepted model on the original files of the test split and compare."""
    folder_of_images = layout.images_folder(params.data.root)
    with TemporaryDirectory() as name:
        file = accepted.fetch(version, layout, Path(name) / "model.onnx")
        session = runtime.session(file, threads=1)  # the pool below is the parallelism
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    rows = list(predictions.select("image_id", "path", "label").iter_rows())
    with bar(f"asking {version}", len(rows), "image") as advance:

        def is_right(row: tuple[str, str, str]) -> bool:
            image_id, where, label = row
            rgb = images.decode(images.read_unchanged(located(where, folder_of_images), image_id)).rgb
            found = session.run(["label_index"], {"image": rgb[None]})[0]
            advance(1)
            return bool(classes[int(found[0])] == label)

        with ThreadPoolExecutor(n_cores()) as pool:
            accepted_right = np.array(list(pool.map(is_right, rows)))
    settings = params.evaluate
    return accepted.compare(
        version,
        predictions["correct"].to_numpy(),
        accepted_right,
        groups,
        settings.bootstrap_samples,
        settings.seed,
    )


def abstaining(
    probabilities: np.ndarray, labels: np.ndarray, threshold: float, wanted_accuracy: float
) -> dict[str, float | None]:
    """Return what becomes of float [N, C] where the model abstains below `threshold`."""
    answered = probabilities.max(1) >= threshold
    right = probabilities.argmax(1) == labels
    return {
        "wanted_accuracy": wanted_accuracy,
        "abstain_below": round(threshold, 6),
        "coverage": round(float(answered.mean()), 6),
        "selective_accuracy": round(float(right[answered].mean()), 6) if answered.any() else None,
    }


def by_name(classes: list[str], per_class: list[metrics.ClassScores]) -> dict[str, dict[str, object]]:
    """Return the scores of each class, rounded; those of a class without held-out images are null."""

    def plain(scores: metrics.ClassScores) -> dict[str, object]:
        values: dict[str, object] = {"support": scores.support, "n_predicted": scores.n_predicted}
        for name in ("precision", "recall", "f1"):
            value = getattr(scores, name)
            values[name] = None if value is None else round(value, 6)
        for name in ("precision", "recall"):
            interval = getattr(scores, f"{name}_interval")
            values[f"{name}_low"] = None if interval is None else round(interval.low, 6)
            values[f"{name}_high"] = None if interval is None else round(interval.high, 6)
        return values

    return {name: plain(scores) for name, scores in zip(classes, per_class, strict=True)}


def _held_out_answers(chosen: str, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return how sure, and whether right, answers were on images that the head in question had not learned from."""
    if chosen == "tuned":
        told = tables.read(layout.finetune / "validation.parquet", tables.VALIDATION, "finetune")
        return told["tuned_probability"].to_numpy(), told["tuned_correct"].to_numpy()
    told = tables.read(layout.head / "out_of_fold.parquet", tables.OUT_OF_FOLD, "train_head")
    return told["probability"].to_numpy(), told["correct"].to_numpy()


def _thinned(curve: metrics.RiskCoverage) -> pl.DataFrame:
    """Return the curve as a table of `_MAX_POINTS` rows at most: a plot needs no more."""
    rows = np.unique(np.linspace(0, len(curve.risk) - 1, min(_MAX_POINTS, len(curve.risk))).round().astype(int))
    return pl.DataFrame({name: np.round(getattr(curve, name)[rows], 6) for name in curve._fields})


def _candidate(folder: Path, made_by: str, features: np.ndarray, temperature: float) -> Candidate:
    """Return what the head in `folder` says of features [N, D]."""
    head = head_of(read_safetensors(folder / "head.safetensors", made_by))
    session = runtime.session(pieces.to_bytes(head))
    probabilities, novelty = session.run(["probabilities", "novelty"], {"features": features.astype(np.float32)})
    return Candidate(probabilities, novelty, temperature)


def _embedded(folder: Path, backbone_sha256: str, source: pixels.Source, rows: pl.DataFrame) -> np.ndarray:
    """Return float32 [N, D] of the backbone in `folder`, which no store holds."""
    kind = engines.kind("onnxruntime")
    embedding = Embedding(folder, backbone_sha256, kind, kind.batch_size, source, "float32", views=None)
    with bar("embedding", len(rows), "image") as advance:
        return embedding(dict(rows.select("image_id", "path").iter_rows()), advance)[:, 0]
