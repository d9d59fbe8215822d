"""What a choice may look at, and what is fitted for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from headstart.base.errors import DataError
from headstart.base.intervals import wilson
from headstart.heads import (
    calibration,
    candidates,
    crossval,
    design,
    knn,
    lda,
    mlp,
    plan,
    prototype,
    ridge,
    softmax,
    svm,
    sweep,
)
from headstart.heads.candidates import Nested
from headstart.heads.contract import Fitted, Kind, Training
from headstart.heads.design import PROCESS_MB, Design, Source
from headstart.heads.kinds import KINDS
from headstart.heads.view import Judged, View
from tests.support.heads import (
    TWO,
    clusters,
    figures,
    level_sets,
    n_classes_of,
    select,
    settings,
    source_of,
    two_levels,
    with_noise,
)

ALL = [*KINDS.values()]


def test_out_of_fold_scores_never_saw_their_own_label(dealt: None) -> None:
    features, labels = two_levels()
    before = select(source_of(features, labels), strengths=[1e-2])
    hidden = before.fold_of == 0
    turned = np.where(hidden, (labels + 1) % 3, labels)
    after = select(source_of(features, turned), strengths=[1e-2])
    raw, again = (each.out_of_fold[hidden] * each.temperature for each in (before, after))
    assert np.allclose(raw, again)
    assert not np.allclose(
        before.out_of_fold[~hidden] * before.temperature, after.out_of_fold[~hidden] * after.temperature
    )


def naive(source: Source, outer: np.ndarray, **changes: Any) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Return the scores of each outer fold by the head that is chosen afresh without it, and what was chosen."""
    scores, names = np.zeros((len(outer), n_classes_of(source))), []
    for fold in range(outer.max() + 1):
        inside = outer != fold
        part = source_of(source.features[inside], source.labels[inside], source.groups[inside])
        chosen = select(part, **changes, folds=outer.max(), is_nested=False)
        names.append((chosen.chosen.kind, chosen.chosen.levels))
        scores[~inside] = chosen.head.scores(source.features[np.flatnonzero(~inside)][:, chosen.columns])
    return scores, names


@pytest.mark.parametrize(
    ("kinds", "within"),
    [([ridge, lda, prototype], 1e-5), ([ridge, lda, knn, mlp], 1e-5), ([softmax, svm, ridge], 2e-2), ([softmax], 2e-2)],
    ids=["closed", "other", "descent", "descent alone"],
)
@pytest.mark.parametrize("criterion", ["log_loss", "macro_f1"])
def test_nested_cross_validation_is_the_selection_chosen_afresh_outside_each_fold(
    kinds: list[Kind], within: float, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = two_levels(150, noise=3)
    source, outer = source_of(features, labels), np.arange(150) // 3 % 3
    found: list[tuple[list[View], list[Judged]]] = []

    def keeping(views: list[View], chosen: list[Judged]) -> Nested:
        found.append((views, chosen))
        return candidates.nested(views, chosen)

    def as_before(labels: np.ndarray, groups: np.ndarray, *_: int) -> np.ndarray:
        return np.unique(outer[groups], return_inverse=True)[1]

    monkeypatch.setattr(sweep, "nested", keeping)
    monkeypatch.setattr(plan, "assign_folds", as_before)
    # Two strengths, so that no path stops early; where it does is decided by all rows that are held out.
    changes = {"kinds": kinds, "level_sets": level_sets(TWO, 20), "strengths": (1.0, 0.01), "criterion": criterion}
    selection = select(source, **changes)
    ((views, chosen),) = found
    scores, names = naive(source, outer, **changes)
    assert [each.name for each in chosen[1:]] == names
    for view, each in zip(views[1:], chosen[1:], strict=True):
        assert np.abs(view.hidden_scores(each) - scores[view.hidden]).max() < within
    right = scores.argmax(1) == labels
    nested = selection.nested
    assert nested is not None
    assert nested.accuracy == pytest.approx(right.mean())
    assert nested.interval == pytest.approx(wilson(right.mean(), 150))
    assert nested.log_loss == pytest.approx(calibration.log_loss(scores, labels), abs=within)
    name = (selection.chosen.kind, selection.chosen.levels)
    assert nested.n_agreeing == sum(each == name for each in names)


def test_choosing_among_many_that_know_nothing_flatters_and_nested_figures_do_not(dealt: None) -> None:
    random = np.random.default_rng(0)
    apart = []
    for _ in range(5):
        features, labels = random.normal(size=(60, 240)).astype(np.float32), random.permutation(60) % 2
        levels = level_sets({f"level {number}": slice(12 * number, 12 * number + 12) for number in range(20)}, 240)
        selection = select(
            source_of(features, labels), kinds=[prototype], level_sets=levels, criterion="accuracy", with_blend=False
        )
        assert selection.nested is not None
        apart.append((selection.chosen.cv_accuracy, selection.nested.accuracy))
    flattered, told = np.mean(apart, axis=0)
    assert flattered > 0.55 > told


def test_it_is_not_nested_with_two_folds_or_where_that_is_not_wanted() -> None:
    source = source_of(*clusters(80))
    for changes in ({"folds": 2}, {"is_nested": False}):
        selection = select(source, **changes)
        assert selection.nested is None
        assert all(each.nested_accuracy is None for each in selection.candidates)
    assert figures(select(source, is_nested=False)) == figures(select(source))


def test_groups_are_never_divided() -> None:
    features, labels = clusters(240, 3)
    labels = np.random.default_rng(1).permutation(labels[:80])  # nothing to learn: what has been seen would be known
    groups = np.repeat(np.arange(80), 3)
    source = source_of(np.repeat(features[::3], 3, axis=0), np.repeat(labels, 3), groups)
    selection = select(source, kinds=[ridge, knn], strengths=[1e-3])
    assert all(len(set(selection.fold_of[groups == group])) == 1 for group in range(80))
    assert all(each.cv_accuracy < 0.5 for each in selection.candidates)
    assert selection.nested is not None
    assert selection.nested.accuracy < 0.5
    assert selection.nested.interval == pytest.approx(wilson(selection.nested.accuracy, 80))
    apart = select(source_of(source.features, source.labels), kinds=[knn])
    assert apart.chosen.cv_accuracy > 0.65


def test_a_class_of_a_single_group_is_refused() -> None:
    features, labels = clusters(60, 3)
    groups = np.where(labels == 2, 0, np.arange(60) + 1)
    with pytest.raises(DataError, match="a class has a single group of images in train and val together"):
        select(source_of(features, labels, groups))


@pytest.mark.parametrize(("n_rare", "folds"), [(2, 2), (3, 3), (9, 4)])
def test_folds_are_as_many_as_the_smallest_class_has_groups(n_rare: int, folds: int) -> None:
    features, labels = clusters(60, 3)
    kept = (labels != 2) | (np.cumsum(labels == 2) <= n_rare)
    selection = select(source_of(features[kept], labels[kept]))
    assert selection.n_folds == folds
    assert (selection.nested is None) == (folds == 2)


@pytest.mark.usefixtures("dealt")
def test_renamed_classes_rename_the_answers() -> None:
    features, labels = two_levels(noise=3)
    names = np.array([2, 0, 1])
    changes: dict[str, Any] = {"kinds": [ridge, lda, svm, softmax], "level_sets": level_sets(TWO, 20)}
    one, other = (select(source_of(features, of), **changes) for of in (labels, names[labels]))
    assert figures(one) == figures(other)
    assert np.abs(one.out_of_fold - other.out_of_fold[:, names]).max() < 1e-3
    assert one.nested is not None
    assert other.nested is not None
    assert one.nested.accuracy == other.nested.accuracy


def test_the_order_of_images_changes_nothing() -> None:
    features, labels = two_levels(noise=3)
    order = np.random.default_rng(0).permutation(len(labels))
    changes: dict[str, Any] = {"kinds": [ridge, lda, svm, softmax, knn], "level_sets": level_sets(TWO, 20)}
    one, other = (
        select(source_of(features, labels), **changes),
        select(source_of(features[order], labels[order], order), **changes),
    )
    assert np.array_equal(one.fold_of[order], other.fold_of)
    assert figures(one) == figures(other)
    assert np.abs(one.out_of_fold[order] - other.out_of_fold).max() < 1e-3


def test_the_same_data_give_the_same_bytes() -> None:
    source = source_of(*clusters(120))
    first, second = (select(source, kinds=ALL, training=Training(seed=3)) for _ in range(2))
    assert first.out_of_fold.tobytes() == second.out_of_fold.tobytes()
    assert first.candidates == second.candidates
    assert first.nested == second.nested


@pytest.mark.parametrize(
    ("kinds", "n", "memory_mb"), [([ridge], 30_000, PROCESS_MB + 2), (ALL, 80, 1000)], ids=["many rows", "all kinds"]
)
def test_the_bytes_follow_from_memory_mb_and_not_from_the_cores(
    kinds: list[Kind], n: int, memory_mb: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels = clusters(n, n_features=40)
    found = []
    for cores in (1, 3):
        for module in (sweep, crossval, design):
            monkeypatch.setattr(module, "n_cores", lambda cores=cores: cores)
        found.append(select(source_of(features, labels), kinds=kinds, memory_mb=memory_mb))
    assert found[0].head.scores(features).tobytes() == found[1].head.scores(features).tobytes()
    assert found[0].out_of_fold.tobytes() == found[1].out_of_fold.tobytes()
    assert found[0].candidates == found[1].candidates


class Counted:
    """A kind that tells of each fit: of what width its design was."""

    def __init__(self, kind: Kind) -> None:
        self.widths: list[int] = []
        self.kind = cast(
            Kind, SimpleNamespace(**{name: getattr(kind, name) for name in dir(kind)} | {"fit_path": self})
        )
        self.own = kind

    def __call__(self, design: Design, n_classes: int, strengths: Sequence[float], *of: Any) -> Iterator[Fitted]:
        self.widths.append(design.n_features)
        return self.own.fit_path(design, n_classes, strengths, *of)


def test_costly_kinds_are_tried_on_last_and_on_the_levels_of_the_best_closed_form_alone() -> None:
    features, labels = with_noise(40), clusters(240, 3)[1]
    columns = {"last": slice(40, 44), "noise": slice(30), "known": slice(40, 52), "more noise": slice(2, 33)}
    costly, closed = Counted(softmax), Counted(ridge)
    told: list[int] = []
    changes: dict[str, Any] = {"kinds": [costly.kind, closed.kind], "level_sets": level_sets(columns, 52)}
    selection = select(source_of(features, labels), **changes, advance=told.append)
    n_jobs = 4 + 6
    assert Counter(closed.widths) == {4: n_jobs, 30: n_jobs, 12: n_jobs, 31: n_jobs}
    assert set(costly.widths) <= {4, 12}
    assert Counter(costly.widths)[12] == n_jobs
    assert {(each.kind, each.levels) for each in selection.candidates if each.kind == "softmax"} <= {
        ("softmax", "last"),
        ("softmax", "known"),
    }
    assert len(told) == sum(told) == len(costly.widths) + len(closed.widths)


@pytest.mark.parametrize(
    ("kinds", "columns"),
    [(ALL, TWO), ([softmax, knn], TWO), ([ridge, softmax], {str(number): slice(number, 20) for number in range(9)})],
    ids=["all", "costly alone", "many levels"],
)
def test_fits_are_at_most_as_many_as_are_told(kinds: list[Kind], columns: dict[str, slice]) -> None:
    source = source_of(*two_levels(60))
    told: list[int] = []
    changes: dict[str, Any] = {"kinds": kinds, "level_sets": level_sets(columns, 20), "strengths": (1.0, 0.1)}
    select(source, **changes, advance=told.append)
    assert 0 < len(told) == sum(told) <= settings(source, **changes).n_fits
    if kinds == [softmax, knn]:
        assert sum(told) == settings(source, **changes).n_fits


def test_of_many_images_the_head_is_the_same_and_a_hidden_fold_stays_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = two_levels(600, noise=3)
    source = source_of(features, labels)
    kinds = [softmax, ridge, lda]
    every = select(source, kinds=kinds, folds=5)
    found: list[tuple[list[View], list[Judged]]] = []

    def keeping(views: list[View], chosen: list[Judged]) -> Nested:
        found.append((views, chosen))
        return candidates.nested(views, chosen)

    monkeypatch.setattr(sweep, "nested", keeping)
    monkeypatch.setattr(crossval, "ENOUGH", 150)
    some = select(source, kinds=kinds, folds=5)
    assert (some.chosen.kind, some.chosen.levels, some.chosen.strength) == (
        (every.chosen.kind, every.chosen.levels, every.chosen.strength)
    )
    assert np.array_equal(some.out_of_fold, every.out_of_fold)
    assert some.nested is not None and every.nested is not None
    assert some.nested.accuracy == pytest.approx(every.nested.accuracy, abs=0.02)

    (views, chosen), hidden = found[0], some.fold_of == 0
    turned = np.where(hidden, (labels + 1) % 3, labels)
    monkeypatch.setattr(plan, "assign_folds", lambda *_: some.fold_of)
    select(source_of(features, turned), kinds=kinds, folds=5)
    again, after = found[1]
    assert views[1].part == 0 and views[1].seen.sum() < 300
    assert np.allclose(views[1].hidden_scores(chosen[1]), again[1].hidden_scores(after[1]), atol=1e-5)
