"""Choose and fit the head on the features of train + val.

Reads the features and the splits; writes artifacts/head/: head.onnx, its cross-validation, the learning curve. Nothing
here reads the test split. A head that was fitted to the same features and labels, with the same parameters and
`VERSION`, is taken from the cache of this machine.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import special

from headstart.base import dataset, label_sets, tables
from headstart.base.dataset import TRAIN, VAL, Images
from headstart.base.errors import CheckError, ParamError, count_and_name
from headstart.base.files import are_as_promised, replacing_folder, sums, write_csv
from headstart.base.progress import bar, say, show_table, warn
from headstart.embedding import features
from headstart.heads import blend, contract, learning_curve, novelty, ridge, softmax, svm, sweep
from headstart.heads.contract import Training
from headstart.heads.design import Budget, Source
from headstart.heads.folds import draw
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import level_sets
from headstart.onnx import head_folder
from headstart.onnx.head_folder import HeadRecipe, HeadRecord, MemberRecord, NestedRecord, TrainingRecord
from headstart.onnx.pieces import to_bytes
from headstart.store.shards import fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headstart.embedding.features import Features
    from headstart.heads.candidates import Candidate
    from headstart.heads.members import Member
    from headstart.heads.sweep import Selection
    from headstart.layout import Layout
    from headstart.onnx.backbone_folder import LevelRecord
    from headstart.params import Params, TrainHead

_SHOWN = ("kind", "levels", "strength", "cv_accuracy", "cv_log_loss", "nested_accuracy", "chosen")
_PENALISED = (softmax.NAME, svm.NAME, ridge.NAME)  # what train_head.strengths is for
_MAX_NOVELTY_IMAGES = 10_000  # more would not make a class centre any surer


def run(params: Params, layout: Layout) -> None:
    """Fit and write the head, or take one that follows from the same inputs from the cache."""
    settings = params.train_head
    data = dataset.read(layout)
    images, cached = data.of(TRAIN, VAL), features.opened(layout)
    made_for = _made_for(settings, images, data.classes, cached)
    if layout.cache.take("train_head", made_for, layout.head, lambda folder: _is_there(folder, made_for)):
        say("a head was fitted to the same features, labels and parameters before: it is taken from the cache")
        return
    weights = _class_weights(settings, images.labels, data.classes)
    rows, views = cached.rows(images.image_ids), cached.view_rows(images.image_ids)
    source = Source(rows, views, images.labels, images.groups, weights)
    selection = _selected(settings, source, cached.record.levels, len(data.classes))
    with bar("learning curve", selection.n_folds * len(learning_curve.FRACTIONS), "fit") as advance:
        curve = learning_curve.measure(
            selection, source, len(data.classes), seed=settings.seed, memory_mb=settings.memory_mb, advance=advance
        )
    _warn(settings, selection, len(images))
    scale = _novelty(settings, source.at(selection.columns), selection, len(data.classes))
    with replacing_folder(layout.head) as folder:
        (folder / head_folder.HEAD).write_bytes(to_bytes(head_graph(selection.head, scale)))
        write_csv(folder / head_folder.CANDIDATES, _rounded(selection.candidates))
        write_csv(folder / head_folder.LEARNING_CURVE, _rounded(curve.points))
        head_folder.write_out_of_fold(folder, _out_of_fold(images, selection))
        record = _record(settings, selection, source, data.classes, cached, curve, made_for, sums(folder))
        head_folder.write(folder, record)
    layout.cache.put("train_head", made_for, layout.head)
    best = [{name: getattr(each, name) for name in _SHOWN} for each in selection.candidates if each.is_best]
    show_table("head-candidates", best, "Cross-validation in train and val: the best strength of each kind and levels")
    for line in _told(selection, record):
        say(line)


def _told(selection: Selection, record: HeadRecord) -> list[str]:
    """Return the outcome in lines."""
    chosen = selection.chosen
    how = "a blend" if chosen.kind == blend.NAME else f"{chosen.kind} on {chosen.levels}"
    how += f" (L2 strength {chosen.strength:g})" if chosen.kind in _PENALISED else ""
    n_images = len(selection.validated)
    right = f"{selection.n_folds}-fold cross-validation: {chosen.cv_accuracy:.2%} of {n_images} images right"
    if record.nested is not None:
        interval = f"({record.nested.accuracy_low:.2%} to {record.nested.accuracy_high:.2%})"
        right += f"; nested {record.nested.accuracy:.2%} {interval}"
    return [f"{len(selection.candidates)} heads were tried; {how} was chosen", right]


def _made_for(settings: TrainHead, images: Images, classes: list[str], cached: Features) -> str:
    """Return the digest of everything that the head follows from."""
    return fingerprint(
        version=contract.VERSION,
        libraries=" ".join(f"{name} {number}" for name, number in _versions().items()),
        params=settings.model_dump_json(),
        classes=json.dumps(classes),
        images=json.dumps([*zip(images.image_ids, images.labels.tolist(), images.groups.tolist(), strict=True)]),
        features=cached.digest,
        out_of_fold=tables.OUT_OF_FOLD.seal,
    )


def _versions() -> dict[str, str]:
    """Return the versions of the packages that decide which numbers a fit gives."""
    return {name: version(name) for name in ("numpy", "scipy")}


def _is_there(folder: Path, made_for: str) -> bool:
    try:
        there = head_folder.read(folder)
    except CheckError:
        return False
    return there.made_for == made_for and are_as_promised(folder, there.files)


def _class_weights(settings: TrainHead, labels: np.ndarray, classes: list[str]) -> np.ndarray | None:
    """Return float64 [C], or None for `none`. ParamError for a class that the data do not have."""
    if settings.class_weight == "none":
        return None
    if settings.class_weight == "balanced":
        counts = np.bincount(labels, minlength=len(classes))
        return len(labels) / (len(classes) * np.maximum(counts, 1))
    if unknown := [name for name in settings.class_weight if name not in classes]:
        raise ParamError(
            f"train_head.class_weight names {count_and_name(unknown)}, which the data do not have. Classes of"
            f" {', '.join(classes[:20])} were expected. Set train_head.class_weight in params.yaml."
        )
    return np.array([settings.class_weight.get(name, 1.0) for name in classes])


def _selected(settings: TrainHead, source: Source, known: Sequence[LevelRecord], n_classes: int) -> Selection:
    names = [*KINDS, blend.NAME] if settings.kinds == "auto" else list(settings.kinds)
    chosen = sweep.Settings(
        [kind for name, kind in KINDS.items() if name in names],
        level_sets(known, settings.levels),
        settings.strengths,
        settings.folds,
        settings.seed,
        settings.memory_mb,
        settings.select_by,
        blend.NAME in names,
        Training(settings.label_smoothing, settings.dropout, settings.seed),
        settings.logit_adjustment,
    )
    with bar("fitting", chosen.n_fits, "fit") as advance:
        return sweep.select(source, n_classes, chosen, advance)


def _warn(settings: TrainHead, selection: Selection, n_images: int) -> None:
    """Warn of what a user should look at in the cross-validation."""
    if selection.n_folds < settings.folds:
        warn(f"{selection.n_folds} folds instead of {settings.folds}: the smallest class has no more groups")
    if selection.n_folds == 2:
        warn(
            "two folds leave none to repeat the choice within: how much the choice flatters its own figure is not known"
        )
    if len(selection.validated) < n_images:
        warn(
            f"cross-validated on {len(selection.validated)} of {n_images} images: enough to choose, or as many as"
            " train_head.memory_mb holds; fitted on all of them"
        )
    if selection.calibration.outcome != "fitted":
        warn(selection.calibration.record.told)
    ends = (min(settings.strengths), max(settings.strengths))
    if selection.chosen.strength in ends and len(set(settings.strengths)) > 1 and selection.chosen.kind in _PENALISED:
        warn(
            f"strength {selection.chosen.strength:g} is at the end of train_head.strengths; a wider range may do better"
        )


def _novelty(settings: TrainHead, source: Source, selection: Selection, n_classes: int) -> novelty.Novelty:
    """Return the class centres, and the scale by the folds of the cross-validation, of some or all of its images."""
    n_images = min(_MAX_NOVELTY_IMAGES, Budget(settings.memory_mb).how_many(24 * source.n_features))
    among = selection.validated
    some = draw(source.labels[among], source.groups[among], n_images, settings.seed)
    images, fold_of = among[some], selection.fold_of[some]
    if len(selection.others):  # they have no place in the scale, and every class needs its centre
        others = selection.others
        more = others[draw(source.labels[others], source.groups[others], n_images, settings.seed)]
        images, fold_of = np.concatenate([images, more]), np.concatenate([fold_of, np.full(len(more), -1)])
    return novelty.fit(source.read(images), source.labels[images], n_classes, fold_of)


def _record(
    settings: TrainHead,
    selection: Selection,
    source: Source,
    classes: list[str],
    cached: Features,
    curve: learning_curve.Curve,
    made_for: str,
    files: dict[str, str],
) -> HeadRecord:
    chosen, known = selection.chosen, [level.name for level in cached.record.levels]
    own = _recipe(selection.members, selection.temperature)
    return HeadRecord(
        kind=chosen.kind,
        words=blend.WORDS if chosen.kind == blend.NAME else KINDS[chosen.kind].WORDS,
        levels=tuple(name for name in known if name in own.levels),
        classes=classes,
        recipe=own,
        linear=_recipe(*selection.linear) if selection.linear else None,
        calibration=selection.calibration.record,
        select_by=settings.select_by,
        training=TrainingRecord(
            class_weights=None if source.class_weights is None else source.class_weights.tolist(),
            label_smoothing=selection.training.label_smoothing,
            dropout=selection.training.dropout,
            seed=selection.training.seed,
            shift=selection.shift.tolist(),
        ),
        n_images=len(source.labels),
        n_views=cached.record.views,
        n_folds=selection.n_folds,
        n_cross_validated=len(selection.validated),
        cv_accuracy=round(chosen.cv_accuracy, 6),
        cv_log_loss=round(chosen.cv_log_loss, 6),
        learning=curve.record,
        nested=_nested(selection),
        precision=cached.record.precision,
        dtype=cached.record.dtype,
        made_for=made_for,
        versions=_versions(),
        files=files,
    )


def _recipe(members: Sequence[Member], temperature: float) -> HeadRecipe:
    told = [
        MemberRecord(
            kind=each.kind,
            levels=each.levels,
            strength=each.strength,
            temperature=round(each.temperature, 6),
            weight=round(each.weight, 6),
        )
        for each in members
    ]
    return HeadRecipe(members=told, temperature=round(temperature, 6))


def _nested(selection: Selection) -> NestedRecord | None:
    if selection.nested is None:
        return None
    accuracy, interval, loss, n_agreeing = selection.nested
    return NestedRecord(
        accuracy=round(accuracy, 6),
        accuracy_low=round(interval.low, 6),
        accuracy_high=round(interval.high, 6),
        log_loss=round(loss, 6),
        optimism=round(selection.chosen.cv_accuracy - accuracy, 6),
        n_agreeing=n_agreeing,
    )


def _rounded(rows: Sequence[Candidate] | Sequence[learning_curve.Point]) -> pl.DataFrame:
    """Return the table of named tuples, their floats to 6 decimals, but for the strengths, which are parameters."""
    table = pl.DataFrame([row._asdict() for row in rows])
    return table.with_columns(pl.col(pl.Float64).exclude("strength").round(6))


def _out_of_fold(images: Images, selection: Selection) -> pl.DataFrame:
    """Return `tables.OUT_OF_FOLD`: each image's prediction by a head that was not fitted on it."""
    probabilities = special.softmax(selection.out_of_fold, axis=1).astype(np.float32)  # as head.onnx gives them
    validated = images[selection.validated]
    above = label_sets.mass_above(probabilities)[np.arange(len(validated)), validated.labels]
    return pl.DataFrame(
        {
            "image_id": validated.image_ids,
            "correct": probabilities.argmax(1) == validated.labels,
            "probability": probabilities.max(1),
            "mass_above": above,
            "probabilities": pl.Series(probabilities).cast(pl.List(pl.Float32)),
        },
    )
