"""All kinds of heads by one cross-validation, against scikit-learn's GridSearchCV over its own equivalents.

The rows are synthetic: clusters of ten classes that overlap. Both have the same folds, the same number of strengths and
the same two cores; the choice is not nested, since GridSearchCV's is not. `--largest 1` times a selection
on 100,000 rows of 2,064 features in 100 classes, and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, arguments, machine, result, table
from headstart.base.cores import n_cores
from headstart.heads import sweep
from headstart.heads.design import Source
from headstart.heads.folds import assign_folds
from headstart.heads.kinds import KINDS
from headstart.heads.level_sets import LevelSet
from headstart.onnx.backbone_folder import LAST

FOLDS = 5


def rows(n_rows: int, n_features: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [N, D], correlated as features are, and labels int [N]."""
    random = np.random.default_rng(0)
    labels = random.integers(0, n_classes, n_rows)
    mixing = random.standard_normal((64, n_features), np.float32)
    centres = random.standard_normal((n_classes, 64), np.float32)
    hidden = 0.35 * centres[labels] + random.standard_normal((n_rows, 64), np.float32)
    noise = random.standard_normal((n_rows, n_features), np.float32)
    return np.maximum(hidden @ mixing / 8 + noise, 0), labels


def ours(features: np.ndarray, labels: np.ndarray, settings: sweep.Settings) -> tuple[float, sweep.Selection]:
    """Return the seconds that a selection takes, and the selection."""
    source = Source(features, None, labels, np.arange(len(labels)))
    began = time.perf_counter()
    selection = sweep.select(source, int(labels.max()) + 1, settings)
    return time.perf_counter() - began, selection


def settings(n_features: int, n_strengths: int, is_nested: bool) -> sweep.Settings:
    """Return all kinds on one set of levels."""
    last = [LevelSet(LAST, (LAST,), np.arange(n_features))]
    strengths = np.logspace(-4, 1, n_strengths).tolist()
    return sweep.Settings([*KINDS.values()], last, strengths, FOLDS, 0, 8192, is_nested=is_nested)


def theirs(n_rows: int, n_strengths: int) -> dict[str, tuple[Any, dict[str, list[Any]]]]:
    """Return scikit-learn's equivalents and their grids, with the same strengths."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    learned = n_rows * (FOLDS - 1) / FOLDS
    strengths = np.logspace(-4, 1, n_strengths)
    return {
        "softmax": (LogisticRegression(max_iter=1000), {"C": (1 / (learned * strengths)).tolist()}),
        "svm": (LinearSVC(dual=False), {"C": (1 / (learned * strengths)).tolist()}),
        "ridge": (RidgeClassifier(), {"alpha": (learned * strengths).tolist()}),
        "lda": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), {}),
        "prototype": (NearestCentroid(), {}),
        "mlp": (MLPClassifier((128,), early_stopping=True, random_state=0), {}),
        "knn": (KNeighborsClassifier(metric="cosine"), {"n_neighbors": [25, 9, 3]}),
    }


def searched(name: str, n_rows: int, n_features: int, n_classes: int, n_strengths: int) -> None:
    """Run one grid search of scikit-learn and print its seconds, its best score and how many it tried."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = rows(n_rows, n_features, n_classes)
    fold_of = assign_folds(labels, np.arange(n_rows), FOLDS, 0)
    folds = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(FOLDS)]
    estimator, grid = theirs(n_rows, n_strengths)[name]
    step = estimator.__class__.__name__.lower()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), estimator),
        {f"{step}__{key}": values for key, values in grid.items()},
        cv=folds,
        n_jobs=n_cores(),
    )
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence
        search.fit(features, labels)
    print(json.dumps([time.perf_counter() - began, search.best_score_, len(search.cv_results_["params"])]))


def compare(given: argparse.Namespace) -> None:
    """Time both on the same rows and folds, and print a line a kind."""
    features, labels = rows(given.rows, given.features, given.classes)
    own_s, selection = ours(features, labels, settings(given.features, given.strengths, is_nested=False))
    print(f"headstart: {own_s:.1f} s for all kinds and their blend", flush=True)
    lines, their_s, best = [], 0.0, 0.0
    for name in KINDS:
        command = [sys.executable, "-m", "benchmarks.head_sweep", "--search", name]
        for option in ("rows", "features", "classes", "strengths"):
            command += [f"--{option}", str(getattr(given, option))]
        began = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            said, _ = began.communicate(timeout=given.limit_s)
            seconds, score, n_tried = json.loads(said.splitlines()[-1])
        except subprocess.TimeoutExpired:
            os.killpg(began.pid, signal.SIGKILL)
            seconds, score, n_tried = float(given.limit_s), float("nan"), 0
        their_s, best = their_s + seconds, max(best, 0 if np.isnan(score) else score)
        own = max(each.cv_accuracy for each in selection.candidates if each.kind == name)
        lines.append([name, n_tried or "did not end", seconds, score, own])
        print(f"scikit-learn {name}: {seconds:.1f} s", flush=True)
    print(f"\n{given.rows} rows, {given.features} features, {given.classes} classes, {machine()}")
    table(["kind", "strengths", "scikit-learn, s", "its accuracy", "accuracy here"], lines)
    result("head_sweep_ratio", their_s / own_s, "times as fast", 10, bool(their_s >= 10 * own_s))
    chosen = selection.chosen.cv_accuracy
    result("head_sweep_accuracy", chosen, f"chosen; scikit-learn's best {best:.4f}", best, bool(chosen >= best))


def largest(n_strengths: int) -> None:
    """Time a selection on many rows, not nested either."""
    features, labels = rows(100_000, 2064, 100)
    seconds, selection = ours(features, labels, settings(2064, n_strengths, is_nested=False))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 * 1.024
    given_mb = features.nbytes / 1e6
    print(
        f"100,000 rows, 2,064 features, 100 classes: {seconds:.0f} s, peak {peak_mb:.0f} MB of which the rows take"
        f" {given_mb:.0f}, cross-validated on {len(selection.validated)}, chosen {selection.chosen.kind}"
        f" ({selection.chosen.cv_accuracy:.2%}); {machine()}"
    )


def main() -> None:
    """Compare with scikit-learn, or time the largest selection."""
    given = arguments(
        __doc__, data=False, rows=10_000, features=1280, classes=10, strengths=12, limit_s=300, largest=0, search=""
    )
    if given.search:
        searched(given.search, given.rows, given.features, given.classes, given.strengths)
    elif given.largest:
        largest(6)
    else:
        compare(given)


if __name__ == "__main__":
    main()
