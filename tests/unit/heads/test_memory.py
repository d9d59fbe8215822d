"""Memory is bounded, and views are trained on and never scored."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

from headstart.base.errors import ParamError
from headstart.heads import (
    crossval,
    design,
    knn,
    lda,
    members,
    plan,
    ridge,
    softmax,
    svm,
    sweep,
)
from headstart.heads.contract import Kind, Training
from headstart.heads.design import PROCESS_MB, Source
from headstart.heads.kinds import KINDS
from tests.support.heads import (
    clusters,
    level_sets,
    probabilities,
    select,
    source_of,
)

ALL = [*KINDS.values()]


class Watched:
    """Rows that tell how many were read at a time, at most."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        found: np.ndarray = self.array[rows]
        return found


def test_what_memory_does_not_hold_is_cross_validated_in_part_and_fitted_whole() -> None:
    features, labels = clusters(30_000, 3, 40)
    random = np.random.default_rng(0)
    labels = np.where(random.random(30_000) < 0.2, random.integers(0, 3, 30_000), labels)
    rows = Watched(features)
    part = select(source_of(rows, labels), kinds=[softmax], strengths=(10.0, 0.1, 1e-3), memory_mb=PROCESS_MB + 2)
    whole = select(source_of(features, labels), kinds=[softmax], strengths=(10.0, 0.1, 1e-3), is_nested=False)
    assert len(whole.validated) == plan.MAX_VALIDATED
    assert 1000 < len(part.validated) < 8000
    assert rows.most <= design.BLOCK_ROWS
    assert part.chosen.strength == whole.chosen.strength
    apart = probabilities(part.head, features) - probabilities(whole.head, features)
    assert np.abs(apart).max() < 0.03


def test_where_memory_holds_too_few_images_of_each_class_it_is_not_nested() -> None:
    features, labels = clusters(4000, 80, 100, noise=3)
    changes: dict[str, Any] = {"strengths": (0.1,), "folds": 4}
    assert select(source_of(features, labels), **changes, memory_mb=PROCESS_MB + 18).nested is not None
    few = select(source_of(features, labels), **changes, memory_mb=PROCESS_MB + 12)
    assert few.nested is None
    assert 1000 < len(few.validated) < 2000


def peak_mb(source: Source, n_cores: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> float:
    """Return how much memory the arrays of a selection take at most, beside the source."""
    for module in (sweep, crossval, design):
        monkeypatch.setattr(module, "n_cores", lambda: n_cores)
    tracemalloc.start()
    try:
        select(source, **changes)
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [ridge, lda, softmax], ids=lambda kind: kind.NAME)
def test_arrays_take_no_more_than_memory_mb_leaves_for_them(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(
        *clusters(10_000, 3, 200)
    )  # its standardised rows take 8 MB, so that one fold is fitted at a time
    changes: dict[str, Any] = {"kinds": [kind], "memory_mb": PROCESS_MB + 35, "strengths": (1.0, 0.1), "folds": 3}
    assert peak_mb(source, 2, monkeypatch, **changes) < 35


def test_the_last_fit_has_what_is_left_beside_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(*clusters(24_000, 40, 200))  # its standardised rows take half of the memory
    changes: dict[str, Any] = {"memory_mb": PROCESS_MB + 40, "strengths": (1.0, 0.1, 0.01, 0.001, 0.0001)}
    assert peak_mb(source, 4, monkeypatch, **changes) < 40


@pytest.mark.parametrize("kind", [ridge, lda, svm], ids=lambda kind: kind.NAME)
def test_many_classes_of_few_images_take_no_more_than_memory_mb_leaves(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(*clusters(3200, 800, 48))
    changes: dict[str, Any] = {"kinds": [kind], "memory_mb": PROCESS_MB + 80, "strengths": (1.0, 0.1)}
    assert peak_mb(source, 4, monkeypatch, **changes) < 80  # the answers of all images alone take 20 MB a head


def test_where_memory_does_not_hold_all_answers_the_other_images_are_learned_from_all_the_same() -> None:
    features, labels = clusters(3200, 800, 48)
    some = select(source_of(features, labels), strengths=(1.0, 0.1), memory_mb=PROCESS_MB + 80)
    every = select(source_of(features, labels), strengths=(1.0, 0.1), is_nested=False)
    assert 400 < len(some.validated) < 800
    assert len(every.validated) == 3200
    assert sorted({*some.validated, *some.others}) == list(range(3200))
    assert some.out_of_fold.shape == (len(some.validated), 800)
    assert np.bincount(some.fold_of, minlength=4).min() > 50
    assert abs(some.chosen.cv_accuracy - every.chosen.cv_accuracy) < 0.05  # as if heads had learned from all
    assert some.chosen.strength == every.chosen.strength
    assert np.allclose(probabilities(some.head, features), probabilities(every.head, features), atol=0.02)


def test_fewer_sets_of_levels_are_tried_rather_than_too_few_answers_compared() -> None:
    features, labels = clusters(1600, 400, 60)
    sets = level_sets({"narrow": slice(0, 20), "wide": slice(0, 60)}, 60)
    changes: dict[str, Any] = {"level_sets": sets, "strengths": (1.0,)}
    low = select(source_of(features, labels), **changes, memory_mb=PROCESS_MB + 26)
    high = select(source_of(features, labels), **changes, memory_mb=PROCESS_MB + 200)
    assert {each.levels for each in low.candidates} == {"narrow"}
    assert {"narrow", "wide"} <= {each.levels for each in high.candidates}


def test_memory_that_holds_no_head_of_so_many_classes_is_told_with_what_would() -> None:
    features, labels = clusters(3200, 800, 48)
    with pytest.raises(ParamError, match=r"does not hold a head of 800 classes on 48 features\. (\d+) or more") as told:
        select(source_of(features, labels), strengths=(1.0,), memory_mb=PROCESS_MB + 20)
    needed = int(re.findall(r"(\d+) or more", str(told.value))[0])
    select(source_of(features, labels), strengths=(1.0,), memory_mb=needed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ridge, softmax], ids=lambda kind: kind.NAME)
def test_very_many_images_take_no_more_memory_than_they_may(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_VALIDATED", 190_000)
    source = source_of(*clusters(200_000, 3, 40))
    changes: dict[str, Any] = {"kinds": [kind], "memory_mb": PROCESS_MB + 130, "strengths": (1.0,), "folds": 2}
    assert peak_mb(source, 2, monkeypatch, **changes) < 130


@pytest.mark.slow
def test_neighbours_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(*clusters(6000, 3, 16))
    assert peak_mb(source, 4, monkeypatch, kinds=[knn], memory_mb=PROCESS_MB + 200) < 200


@pytest.mark.slow
def test_very_many_features_take_a_few_covariances_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    source = source_of(random.standard_normal((20_000, 2048), np.float32), np.arange(20_000) % 3)
    monkeypatch.setattr(plan, "MAX_VALIDATED", 100)
    assert peak_mb(source, 2, monkeypatch, memory_mb=PROCESS_MB + 200, strengths=(1.0,)) < 8 * 8 * 2048**2 / 1e6


@pytest.mark.parametrize("kind", [ridge, softmax, lda, knn], ids=lambda kind: kind.NAME)
def test_views_are_trained_on_and_never_scored(kind: Kind) -> None:
    features, labels = clusters(120, 3)
    random = np.random.default_rng(1)
    views = features[:, None] + random.normal(size=(len(labels), 3, features.shape[1])).astype(np.float32)
    found = select(source_of(features, labels, views=views), kinds=[kind], strengths=(1.0, 0.1))
    both = np.concatenate([features[:, None], views], axis=1).reshape(-1, features.shape[1])
    (member,) = found.members
    expected = members.fit([member], source_of(both, np.repeat(labels, 4)), 3, Training(), memory_mb=1000)
    apart = probabilities(found.head, features) - probabilities(expected.calibrated(found.temperature), features)
    assert np.abs(apart).max() < 1e-5
    assert found.out_of_fold.shape == (120, 3)
    assert found.nested is not None


@pytest.mark.usefixtures("dealt")
def test_views_of_a_held_out_image_are_not_trained_on() -> None:
    features, labels = clusters(120, 3)
    views = np.repeat(features[:, None], 2, axis=1)
    before = select(source_of(features, labels, views=views), strengths=[1e-2])
    hidden = before.fold_of == 0
    moved = np.where(hidden[:, None, None], views + 100, views)
    after = select(source_of(features, labels, views=moved), strengths=[1e-2])
    raw, again = (each.out_of_fold * each.temperature for each in (before, after))
    assert np.allclose(raw[hidden], again[hidden])
    assert not np.allclose(raw[~hidden], again[~hidden])
