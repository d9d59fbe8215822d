from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
import pytest

from headstart.heads import crossval, knn, lda, mlp, prototype, ridge, softmax, svm
from headstart.heads.calibration import fit_temperature, log_loss
from headstart.heads.contract import PLAIN, Kind
from headstart.heads.crossval import Division, Family, fill
from headstart.heads.design import Source
from headstart.heads.level_sets import LevelSet
from tests.support.heads import clusters, level_sets, path, source_of

N, N_FOLDS = 120, 4
ALL = (softmax, svm, ridge, lda, prototype, mlp, knn)


def division(source: Source, is_nested: bool = True) -> Division:
    """Return the cross-validation of all images in folds that are dealt in turn."""
    return Division(source, int(source.labels.max()) + 1, np.arange(N), np.arange(N) // 4 % N_FOLDS, is_nested)


def family(kind: Kind, strengths: tuple[float, ...], levels: LevelSet | None = None) -> Family:
    return Family(kind, levels or level_sets({"last": slice(12)}, 12)[0], strengths)


def filled(of: Division, some: Family, jobs: Collection[tuple[int, ...]] | None = None) -> np.ndarray:
    into = of.empty(some)
    fill(of, [(some, into, of.left_out() if jobs is None else jobs)], PLAIN, 2, lambda n: None)
    return into


def by_hand(source: Source, kind: Kind, strength: float, without: tuple[int, ...]) -> np.ndarray:
    """Return the scores of all images by a head that was fitted without some folds."""
    inside = ~np.isin(division(source).fold_of, without)
    part = source_of(source.features[inside], source.labels[inside], source.groups[inside])
    (head,) = path(kind, part, [strength], n_classes=int(source.labels.max()) + 1)
    return head.scores(source.features[np.arange(N)])


def test_each_fold_is_left_out_alone_and_with_every_other() -> None:
    source = source_of(*clusters(N))
    assert division(source, False).left_out() == [(0,), (1,), (2,), (3,)]
    assert division(source).left_out()[4:] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert division(source).empty(family(ridge, (1.0, 0.1))).shape == (5, 2, N, 4)
    assert division(source, False).empty(family(ridge, (1.0, 0.1))).shape == (1, 2, N, 4)


@pytest.mark.parametrize(
    ("n_images", "n_folds", "of_first"),
    [(120, 4, [1, 2, 3]), (3000, 5, [1, 2, 3, 4]), (4000, 5, [1, 4]), (4000, 10, [1, 2, 8, 9]), (10_000, 10, [1, 9])],
)
def test_of_many_images_a_choice_within_a_fold_looks_at_enough_in_the_neighbouring_folds(
    n_images: int, n_folds: int, of_first: list[int]
) -> None:
    source = source_of(np.zeros((n_images, 2), np.float32), np.arange(n_images) % 2)
    of = Division(source, 2, np.arange(n_images), np.arange(n_images) % n_folds, is_nested=True)
    assert of.inner(0) == of_first
    assert np.isin(of.fold_of, of.inner(3)).sum() >= min(crossval.ENOUGH, n_images * (n_folds - 1) // n_folds)
    assert len(of.left_out()) == n_folds + n_folds * len(of_first) // 2
    assert all(one in of.inner(other) and other in of.inner(one) for one, other in of.left_out()[n_folds:])


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.NAME)
def test_scores_are_those_of_heads_that_were_fitted_without_their_folds(kind: Kind) -> None:
    source = source_of(*clusters(N))
    strengths = tuple(kind.grid([1.0, 0.1], N, 12))[-2:]
    of, found = division(source), filled(division(source), family(kind, strengths))
    for row, strength in enumerate(strengths):
        for fold in range(N_FOLDS):
            held_out = of.fold_of == fold
            expected = by_hand(source, kind, strength, (fold,))[held_out]
            assert np.abs(found[-1, row, held_out] - expected).max() < 5e-3
            assert np.array_equal(found[fold, row, held_out], found[-1, row, held_out])
        for hidden, fold in itertools.permutations(range(N_FOLDS), 2):
            held_out = of.fold_of == fold
            expected = by_hand(source, kind, strength, (hidden, fold))[held_out]
            assert np.abs(found[hidden, row, held_out] - expected).max() < 5e-3


def test_levels_are_columns_and_what_is_filled_side_by_side_is_what_is_filled_alone() -> None:
    features, labels = clusters(N)
    of = division(source_of(features, labels))
    sets = level_sets({"lower": slice(5), "upper": slice(3, 12)}, 12)
    some = [family(kind, (0.1,), levels) for levels in sets for kind in (ridge, prototype)]
    told: list[int] = []
    together = [(each, of.empty(each), of.left_out()) for each in some]
    fill(of, together, PLAIN, 3, told.append)
    assert sum(told) == len(some) * len(of.left_out())
    for each, into, _ in together:
        assert np.array_equal(into, filled(of, each))
        narrow = source_of(features[:, each.levels.columns], labels)
        expected = by_hand(narrow, each.kind, 0.1, (1,))[of.fold_of == 1]
        assert np.abs(into[-1, 0, of.fold_of == 1] - expected).max() < 1e-4


def test_only_what_is_asked_for_is_fitted() -> None:
    source = source_of(*clusters(N))
    of = division(source)
    found = filled(of, family(ridge, (0.1,)), {(1,), (0, 2)})
    assert {(part, fold) for part in range(5) for fold in range(4) if found[part, 0, of.fold_of == fold].any()} == {
        (4, 1),
        (1, 1),
        (0, 2),
        (2, 0),
    }


@pytest.mark.parametrize("kind", [softmax, ridge], ids=lambda kind: kind.NAME)
def test_a_head_knows_nothing_of_the_labels_and_views_that_it_is_asked_about(kind: Kind) -> None:
    features, labels = clusters(N)
    views = features[:, None] + 1
    hidden = division(source_of(features, labels)).fold_of == 2
    before = filled(division(source_of(features, labels, views=views)), family(kind, (1.0, 0.1)))
    others, moved = np.where(hidden, (labels + 1) % 4, labels), np.where(hidden[:, None, None], views + 9, views)
    after = filled(division(source_of(features, others, views=moved)), family(kind, (1.0, 0.1)))
    assert np.array_equal(before[-1][:, hidden], after[-1][:, hidden])
    assert np.array_equal(before[2], after[2])
    assert not np.array_equal(before[-1][:, ~hidden], after[-1][:, ~hidden])


def test_a_long_path_knows_nothing_of_the_labels_that_it_is_asked_about() -> None:
    features, labels = clusters(N)
    path_of = family(softmax, (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4))
    hidden = division(source_of(features, labels)).fold_of == 2
    before = filled(division(source_of(features, labels)), path_of)
    after = filled(division(source_of(features, np.where(hidden, (labels + 1) % 4, labels))), path_of)
    assert np.array_equal(before[2], after[2])


LONG = (30.0, 10.0, 3.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4)


@pytest.mark.parametrize("kind", [softmax, svm, ridge], ids=lambda kind: kind.NAME)
def test_a_costly_kind_stops_in_a_pair_of_folds_where_the_loss_of_each_has_risen_twice(kind: Kind) -> None:
    features, labels = clusters(N, n_features=40, noise=4)
    of = division(source_of(features, labels))
    found = filled(of, family(kind, LONG, level_sets({"last": slice(40)}, 40)[0]))
    for hidden, fold in itertools.permutations(range(N_FOLDS), 2):
        scores, truth = found[hidden][:, of.fold_of == fold], labels[of.fold_of == fold]
        fitted = 1 + sum(not np.array_equal(one, other) for one, other in itertools.pairwise(scores))
        losses = [log_loss(each / fit_temperature(each, truth), truth) for each in scores[:fitted]]
        assert fitted == len(LONG) if kind is ridge else 3 <= fitted < len(LONG)
        if kind is not ridge:
            assert losses[-1] > losses[-2] > min(losses)
            assert sum(later > min(losses[:number]) for number, later in enumerate(losses) if number) >= 2


def n_fitted(scores: np.ndarray) -> int:
    """Return how many strengths of a path, [S, n, C], were fitted; the others repeat the last."""
    return 1 + sum(not np.array_equal(one, other) for one, other in itertools.pairwise(scores))


@pytest.mark.parametrize("kind", [softmax, svm], ids=lambda kind: kind.NAME)
def test_a_path_for_a_hidden_fold_goes_as_far_as_those_of_the_pairs(kind: Kind) -> None:
    features, labels = clusters(N, n_features=40, noise=4)
    of = division(source_of(features, labels))
    found = filled(of, family(kind, LONG, level_sets({"last": slice(40)}, 40)[0]))
    for hidden in range(N_FOLDS):
        others = [n_fitted(found[hidden][:, of.fold_of == fold]) for fold in range(N_FOLDS) if fold != hidden]
        assert n_fitted(found[hidden][:, of.fold_of == hidden]) == max(others) < len(LONG)


def test_a_closed_form_is_fitted_for_every_strength() -> None:
    features, labels = clusters(N, n_features=40, noise=4)
    of = division(source_of(features, labels))
    found = filled(of, family(ridge, LONG, level_sets({"last": slice(40)}, 40)[0]))
    assert {n_fitted(part[:, of.fold_of == fold]) for part in found for fold in range(N_FOLDS)} == {len(LONG)}
