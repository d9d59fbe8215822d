from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import learning_curve, softmax, sweep
from headstart.heads.design import Source


def data(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n)
    return (random.normal(size=(n, 40)) + 1.2 * np.eye(3, 40)[labels]).astype(np.float32), labels


def curve_of(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, **changes: object) -> tuple:
    options = {"seed": 0, "memory_mb": 4096, **changes}
    source = Source(features, None, labels)
    selection = sweep.select(source, groups, 3, kind=softmax, strengths=[0.01, 0.1, 1.0], folds=5, **options)
    return selection, learning_curve.measure(source, groups, 3, selection, **options)


def test_more_images_make_a_better_head_and_the_last_point_is_the_selections() -> None:
    features, labels = data()
    selection, points = curve_of(features, labels, np.arange(600))
    assert [point.fraction for point in points] == [0.1, 0.25, 0.5, 1.0]
    assert [point.n_images for point in points] == [48, 120, 240, 480]
    chosen = selection.chosen
    assert points[-1].accuracy == pytest.approx(chosen.cv_accuracy)
    assert points[-1].log_loss == pytest.approx(chosen.cv_log_loss)
    assert points[-1].accuracy_std == pytest.approx(chosen.cv_accuracy_std)
    assert points[0].accuracy + 0.1 < points[-1].accuracy
    assert points[0].log_loss > points[-1].log_loss


def test_nobody_is_asked_about_what_he_learned_from() -> None:
    features, labels = data(200)
    labels = np.random.default_rng(1).permutation(labels)  # nothing to learn: what has been seen would be known
    _, points = curve_of(np.repeat(features, 4, axis=0), np.repeat(labels, 4), np.repeat(np.arange(200), 4))
    assert all(point.accuracy < 0.45 for point in points)


def test_the_same_seed_and_any_number_of_threads_give_the_same_points(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(300)
    _, points = curve_of(features, labels, np.arange(300))
    monkeypatch.setattr(learning_curve, "n_cores", lambda: 1)
    assert curve_of(features, labels, np.arange(300))[1] == points


def test_every_fit_is_told_of() -> None:
    features, labels = data(100)
    told: list[int] = []
    selection, _ = curve_of(features, labels, np.arange(100))
    source = Source(features, None, labels)
    learning_curve.measure(source, np.arange(100), 3, selection, seed=0, memory_mb=4096, advance=told.append)
    assert sum(told) == selection.n_folds * len(learning_curve.FRACTIONS)
