"""Choose and fit the head on the features of train + val.

Reads the feature stores and the splits; writes artifacts/head/: the head, its cross-validation, the learning curve and
what the model needs to tell how new an image is. The test split has no part in anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.special import softmax

from headstart.base import tables
from headstart.base.files import read_json, replacing_folder, write_csv, write_json, write_safetensors
from headstart.base.progress import bar, say, show_table, warn
from headstart.heads import learning_curve, novelty, sweep
from headstart.store import arrays

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Params

_MAX_NOVELTY_IMAGES = 10_000  # more would not make a class centre any surer


def run(params: Params, layout: Layout) -> None:
    """Read, select, write."""
    settings = params.train_head
    splits = tables.read(layout.splits, tables.SPLITS, "split").filter(pl.col("split") != "test")
    classes: list[str] = read_json(layout.split_summary, "split")["classes"]
    labels = splits["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    image_ids = splits["image_id"].to_list()
    plain = arrays.Store(layout.plain_features, "embed", layout.shards(layout.plain_features, params.cluster.store))
    features = arrays.Rows(plain, image_ids, plain.contract.row_shape[1:])
    embedding = read_json(layout.features / "embedding.json", "embed")
    views = None
    if embedding["views"]:
        augmented = arrays.Store(layout.views, "embed", layout.shards(layout.views, params.cluster.store))
        views = arrays.Rows(augmented, image_ids, augmented.contract.row_shape)
    n_fits = (settings.folds + 1) * len(set(settings.strengths))
    groups = splits["group"].to_numpy()
    common: dict[str, Any] = {"seed": settings.seed, "memory_mb": settings.memory_mb, "views": views}
    with bar("fitting", n_fits, "fit") as advance:
        selection = sweep.select(
            features,
            labels,
            groups,
            len(classes),
            strengths=settings.strengths,
            folds=settings.folds,
            advance=advance,
            **common,
        )
    with bar("learning curve", selection.n_folds * len(learning_curve.FRACTIONS), "fit") as advance:
        curve = learning_curve.measure(features, labels, groups, len(classes), selection, advance=advance, **common)
    chosen = next(candidate for candidate in selection.candidates if candidate.chosen)
    if selection.n_folds < settings.folds:
        warn(f"{selection.n_folds} folds instead of {settings.folds}: the smallest class has no more groups")
    if len(selection.validated) < len(splits):
        warn(
            f"cross-validated on {len(selection.validated)} of {len(splits)} images: enough to choose a strength, or as"
            " many as train_head.memory_mb holds; fitted on all of them"
        )
    if len(selection.candidates) > 1 and chosen in (selection.candidates[0], selection.candidates[-1]):
        warn(f"strength {chosen.strength:g} is at the end of train_head.strengths; a wider range may do better")

    with replacing_folder(layout.head) as folder:
        tensors = {"weight": selection.head.weight, "bias": selection.head.bias}
        tensors |= _novelty(features, labels, groups, selection, len(classes), params).tensors()
        write_safetensors(folder / "head.safetensors", tensors)
        tables.write(folder / "out_of_fold.parquet", _out_of_fold(splits, labels, selection), tables.OUT_OF_FOLD)
        points = pl.DataFrame(curve, schema=learning_curve.Point._fields, orient="row")
        write_csv(folder / "learning_curve.csv", points.with_columns(pl.col(pl.Float64).round(6)))
        write_csv(
            folder / "candidates.csv",
            pl.DataFrame([candidate._asdict() for candidate in selection.candidates]).with_columns(
                pl.col("cv_accuracy", "cv_accuracy_std", "cv_log_loss", "temperature").round(6)
            ),
        )
        write_json(
            folder / "head.json",
            {
                "kind": "multinomial logistic regression, L2, standardiser and temperature folded in",
                "classes": classes,
                "strength": chosen.strength,
                "temperature": round(chosen.temperature, 6),
                "n_images": len(splits),
                "n_views": embedding["views"],
                "n_folds": selection.n_folds,
                "n_cross_validated": len(selection.validated),
                "cv_accuracy": round(chosen.cv_accuracy, 6),
                "cv_log_loss": round(chosen.cv_log_loss, 6),
                "embedding": embedding,
            },
        )
    show_table("head-candidates", [each._asdict() for each in selection.candidates], "Cross-validation in train + val")
    say(
        f"strength {chosen.strength:g} of {len(selection.candidates)}: {chosen.cv_accuracy:.2%} right in"
        f" {selection.n_folds}-fold cross-validation on {len(selection.validated)} images"
    )


def _out_of_fold(splits: pl.DataFrame, labels: np.ndarray, selection: sweep.Selection) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD`: what heads that had not seen an image said of it."""
    probabilities = softmax(selection.out_of_fold_logits / selection.head.temperature, axis=1)
    return splits[selection.validated].select(
        "image_id",
        correct=pl.Series(probabilities.argmax(1) == labels[selection.validated]),
        probability=pl.Series(probabilities.max(1).astype(np.float32)),
    )


def _novelty(
    features: sweep.Rows,
    labels: np.ndarray,
    groups: np.ndarray,
    selection: sweep.Selection,
    n_classes: int,
    params: Params,
) -> novelty.Novelty:
    """Return the class centres, and the scale by the folds of the cross-validation, of some or all of its images."""
    budget = (params.train_head.memory_mb - sweep.PROCESS_MB) * 10**6
    n_images = max(1, min(_MAX_NOVELTY_IMAGES, budget // (24 * features.shape[1])))
    among = selection.validated
    some = sweep.draw(labels[among], groups[among], n_images, params.train_head.seed)
    rows = among[some]
    return novelty.fit(features[rows], labels[rows], n_classes, selection.fold_of[some])
