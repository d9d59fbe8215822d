"""Drawn features, and heads fitted on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from headstart.heads import ridge, sweep
from headstart.heads.contract import PLAIN, Fitted, Kind, Training
from headstart.heads.design import Design, Rows, Source
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import LevelSet
from headstart.heads.sweep import Selection, Settings

STRENGTHS = (1.0, 0.1, 0.01)
LINEAR = {name: kind for name, kind in KINDS.items() if kind.IS_LINEAR}


def clusters(
    n: int = 400, n_classes: int = 4, n_features: int = 12, noise: float = 1.2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping clusters, float32 [N, D] of very unlike scales, and labels int [N], each class as often."""
    labels = np.arange(n) % n_classes
    centres = np.random.default_rng(7).normal(size=(n_classes, n_features))
    features = centres[labels] + noise * np.random.default_rng(seed).normal(size=(n, n_features))
    return (features * np.logspace(-1, 1, n_features) + 3).astype(np.float32), labels


def source_of(
    features: Rows,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    views: np.ndarray | None = None,
    class_weights: np.ndarray | None = None,
) -> Source:
    """Return a source; without `groups`, each image is a group."""
    return Source(features, views, labels, np.arange(len(labels)) if groups is None else groups, class_weights)


def path(
    kind: Kind,
    source: Source,
    strengths: Sequence[float] | None = None,
    *,
    n_classes: int | None = None,
    hold: bool = True,
    training: Training = PLAIN,
    start: Fitted | None = None,
) -> list[Fitted]:
    """Return the heads of a kind, for its own grid unless `strengths` are given, fitted on all images of a source."""
    with threadpool_limits(1):
        design = Design(source, np.arange(len(source.labels)), hold)
        wanted = kind.grid(STRENGTHS, design.n_rows, design.n_features) if strengths is None else strengths
        return list(kind.fit_path(design, n_classes or n_classes_of(source), wanted, training, start))


def probabilities(head: Fitted, features: np.ndarray) -> np.ndarray:
    """Return float64 [N, C]."""
    found: np.ndarray = softmax(head.scores(features), axis=1)
    return found


def n_classes_of(source: Source) -> int:
    """Return C, where every class has an image."""
    return int(source.labels.max()) + 1


def level_sets(columns: Mapping[str, slice], width: int) -> list[LevelSet]:
    """Return sets of one level each, which reads some columns of all."""
    return [LevelSet(name, (name,), np.arange(width)[some]) for name, some in columns.items()]


def select(source: Source, **changes: Any) -> Selection:
    """Return the selection among heads by ridge on all features, unless `changes` say otherwise."""
    n_classes = changes.pop("n_classes", None) or n_classes_of(source)
    advance = changes.pop("advance", lambda n: None)
    return sweep.select(source, n_classes, settings(source, **changes), advance)


def settings(source: Source, **changes: Any) -> Settings:
    """Return settings of a small selection."""
    width = source.features.shape[1]
    plain: dict[str, Any] = {
        "kinds": [ridge],
        "level_sets": level_sets({"last": slice(width)}, width),
        "strengths": STRENGTHS,
        "folds": 4,
        "seed": 0,
        "memory_mb": 1000,
    }
    return Settings(**(plain | changes))


TWO = {"last": slice(12), "other": slice(6, 20)}


def two_levels(n: int = 240, noise: float = 2.0, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return clusters, float32 [N, 20], which the sets of levels `TWO` both tell of."""
    return clusters(n, n_classes, 20, noise)


def figures(selection: Selection) -> list[tuple[object, ...]]:
    """Return what is known of each candidate, to what rounding leaves."""
    return [
        (each.kind, each.levels, each.strength, round(each.cv_accuracy, 4), round(each.cv_log_loss, 2), each.is_best)
        for each in selection.candidates
    ]


def with_noise(n_noise: int) -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=(240, n_noise)).astype(np.float32)
    return np.concatenate([noise, clusters(240, 3, noise=1.5)[0]], axis=1)
