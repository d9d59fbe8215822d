"""Choose and fit the head on the features of train + val.

Reads the features and the splits; writes artifacts/head/: head.onnx, its cross-validation, the learning curve. Nothing
here reads the test split. An existing head is kept if its features, labels, parameters and `VERSION` are unchanged.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.special import softmax

from headstart.base import dataset
from headstart.base.dataset import TRAIN, VAL, Images
from headstart.base.errors import CheckError
from headstart.base.files import are_as_promised, replacing_folder, sums, write_csv
from headstart.base.progress import bar, say, show_table, warn
from headstart.embedding import features
from headstart.heads import contract, learning_curve, novelty, sweep
from headstart.heads.design import Budget, Rows, Source
from headstart.heads.folds import draw
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.onnx import head_folder
from headstart.onnx.head_folder import HeadRecord
from headstart.onnx.pieces import to_bytes
from headstart.store.shards import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.embedding.features import Features
    from headstart.heads.sweep import Selection
    from headstart.layout import Layout
    from headstart.params import Params, TrainHead

_MAX_NOVELTY_IMAGES = 10_000  # more would not make a class centre any surer


def run(params: Params, layout: Layout) -> None:
    """Fit and write the head, or keep an existing one that follows from the same inputs."""
    settings = params.train_head
    data = dataset.read(layout)
    images, cached = data.of(TRAIN, VAL), features.opened(layout)
    made_for = _made_for(settings, images, data.classes, cached)
    if _is_there(layout, made_for):
        say("features, labels and parameters are unchanged; the existing head is kept (delete artifacts/head to refit)")
        return
    source = Source(cached.rows(images.image_ids), cached.view_rows(images.image_ids), images.labels)
    selection = _selected(settings, source, images, len(data.classes))
    with bar("learning curve", selection.n_folds * len(learning_curve.FRACTIONS), "fit") as advance:
        curve = learning_curve.measure(
            source,
            images.groups,
            len(data.classes),
            selection,
            seed=settings.seed,
            memory_mb=settings.memory_mb,
            advance=advance,
        )
    _warn(settings, selection, len(images))
    scale = _novelty(settings, source.features, images, selection, len(data.classes))
    with replacing_folder(layout.head) as folder:
        (folder / head_folder.HEAD).write_bytes(to_bytes(head_graph(selection.head, scale)))
        write_csv(folder / head_folder.CANDIDATES, _rounded(selection.candidates))
        write_csv(folder / head_folder.LEARNING_CURVE, _rounded(curve))
        head_folder.write_out_of_fold(folder, _out_of_fold(images, selection))
        head_folder.write(folder, _record(selection, data.classes, len(images), cached, made_for, sums(folder)))
    show_table("head-candidates", [each._asdict() for each in selection.candidates], "Cross-validation in train + val")
    say(
        f"strength {selection.chosen.strength:g} of {len(selection.candidates)}:"
        f" {selection.chosen.cv_accuracy:.2%} right in {selection.n_folds}-fold cross-validation on"
        f" {len(selection.validated)} images"
    )


def _made_for(settings: TrainHead, images: Images, classes: list[str], cached: Features) -> str:
    """Return the digest of everything that the head follows from."""
    return fingerprint(
        version=contract.VERSION,
        libraries=f"numpy {version('numpy')} scipy {version('scipy')}",
        params=settings.model_dump_json(),
        classes=json.dumps(classes),
        images=json.dumps([*zip(images.image_ids, images.labels.tolist(), images.groups.tolist(), strict=True)]),
        features=cached.digest,
    )


def _is_there(layout: Layout, made_for: str) -> bool:
    try:
        there = head_folder.read(layout.head)
    except CheckError:
        return False
    return there.made_for == made_for and are_as_promised(layout.head, there.files)


def _selected(settings: TrainHead, source: Source, images: Images, n_classes: int) -> Selection:
    n_fits = (settings.folds + 1) * len(set(settings.strengths))
    with bar("fitting", n_fits, "fit") as advance:
        return sweep.select(
            source,
            images.groups,
            n_classes,
            kind=KINDS["softmax"],
            strengths=settings.strengths,
            folds=settings.folds,
            seed=settings.seed,
            memory_mb=settings.memory_mb,
            advance=advance,
        )


def _warn(settings: TrainHead, selection: Selection, n_images: int) -> None:
    """Warn of what a user should look at in the cross-validation."""
    if selection.n_folds < settings.folds:
        warn(f"{selection.n_folds} folds instead of {settings.folds}: the smallest class has no more groups")
    if len(selection.validated) < n_images:
        warn(
            f"cross-validated on {len(selection.validated)} of {n_images} images: enough to choose a strength, or as"
            " many as train_head.memory_mb holds; fitted on all of them"
        )
    if len(selection.candidates) > 1 and selection.chosen in (selection.candidates[0], selection.candidates[-1]):
        warn(
            f"strength {selection.chosen.strength:g} is at the end of train_head.strengths; a wider range may do better"
        )


def _novelty(settings: TrainHead, rows: Rows, images: Images, selection: Selection, n_classes: int) -> novelty.Novelty:
    """Return the class centres, and the scale by the folds of the cross-validation, of some or all of its images."""
    n_images = min(_MAX_NOVELTY_IMAGES, Budget(settings.memory_mb).how_many(24 * rows.shape[1]))
    among = selection.validated
    some = draw(images.labels[among], images.groups[among], n_images, settings.seed)
    return novelty.fit(rows[among[some]], images.labels[among[some]], n_classes, selection.fold_of[some])


def _record(
    selection: Selection, classes: list[str], n_images: int, cached: Features, made_for: str, files: dict[str, str]
) -> HeadRecord:
    return HeadRecord(
        kind=selection.kind.NAME,
        words=selection.kind.WORDS,
        classes=classes,
        strength=selection.chosen.strength,
        temperature=round(selection.chosen.temperature, 6),
        n_images=n_images,
        n_views=cached.record.views,
        n_folds=selection.n_folds,
        n_cross_validated=len(selection.validated),
        cv_accuracy=round(selection.chosen.cv_accuracy, 6),
        cv_log_loss=round(selection.chosen.cv_log_loss, 6),
        precision=cached.record.precision,
        dtype=cached.record.dtype,
        made_for=made_for,
        files=files,
    )


def _rounded(rows: Sequence[sweep.Candidate] | Sequence[learning_curve.Point]) -> pl.DataFrame:
    """Return the table of named tuples, their floats to 6 decimals, but for the strengths, which are parameters."""
    table = pl.DataFrame([row._asdict() for row in rows])
    return table.with_columns(pl.col(pl.Float64).exclude("strength").round(6))


def _out_of_fold(images: Images, selection: Selection) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD`: each image's prediction by a head that was not fitted on it."""
    probabilities = softmax(selection.out_of_fold_logits / selection.chosen.temperature, axis=1)
    validated = images[selection.validated]
    return pl.DataFrame(
        {
            "image_id": validated.image_ids,
            "correct": probabilities.argmax(1) == validated.labels,
            "probability": probabilities.max(1).astype(np.float32),
        }
    )
