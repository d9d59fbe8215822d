"""Choose and fit the head on the features of train + val.

Reads the feature stores and the splits; writes artifacts/head/. The test split has no part in anything here.
"""

from __future__ import annotations

import polars as pl

from headstart import heads, store, tables
from headstart.files import read_json, replacing_folder, write_csv, write_json, write_safetensors
from headstart.layout import Layout
from headstart.params import Params
from headstart.progress import bar, say, show_table, warn


def run(params: Params, layout: Layout) -> None:
    """Read, select, write."""
    settings = params.train_head
    splits = tables.read(layout.splits, tables.SPLITS, "split").filter(pl.col("split") != "test")
    classes: list[str] = read_json(layout.split_summary, "split")["classes"]
    labels = splits["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    image_ids = splits["image_id"].to_list()
    plain = store.Store(layout.plain_features, "embed", layout.shards(layout.plain_features, params.cluster.store))
    features = store.Rows(plain, image_ids, plain.contract.row_shape[1:])
    embedding = read_json(layout.features / "embedding.json", "embed")
    views = None
    if embedding["views"]:
        augmented = store.Store(layout.views, "embed", layout.shards(layout.views, params.cluster.store))
        views = store.Rows(augmented, image_ids, augmented.contract.row_shape)
    n_fits = (settings.folds + 1) * len(set(settings.strengths))
    with bar("fitting", n_fits, "fit") as advance:
        selection = heads.select(
            features,
            labels,
            splits["group"].to_numpy(),
            len(classes),
            strengths=settings.strengths,
            folds=settings.folds,
            seed=settings.seed,
            memory_mb=settings.memory_mb,
            views=views,
            advance=advance,
        )
    chosen = next(candidate for candidate in selection.candidates if candidate.chosen)
    if selection.n_folds < settings.folds:
        warn(f"{selection.n_folds} folds instead of {settings.folds}: the smallest class has no more groups")
    if selection.n_validated < len(splits):
        warn(
            f"cross-validated on {selection.n_validated} of {len(splits)} images: enough to choose a strength, or as"
            " many as train_head.memory_mb holds; fitted on all of them"
        )
    if len(selection.candidates) > 1 and chosen in (selection.candidates[0], selection.candidates[-1]):
        warn(f"strength {chosen.strength:g} is at the end of train_head.strengths; a wider range may do better")

    with replacing_folder(layout.head) as folder:
        write_safetensors(folder / "head.safetensors", {"weight": selection.head.weight, "bias": selection.head.bias})
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
                "n_cross_validated": selection.n_validated,
                "cv_accuracy": round(chosen.cv_accuracy, 6),
                "cv_log_loss": round(chosen.cv_log_loss, 6),
                "embedding": embedding,
            },
        )
    show_table("head-candidates", [each._asdict() for each in selection.candidates], "Cross-validation in train + val")
    say(
        f"strength {chosen.strength:g} of {len(selection.candidates)}: {chosen.cv_accuracy:.2%} right in"
        f" {selection.n_folds}-fold cross-validation on {selection.n_validated} images"
    )
