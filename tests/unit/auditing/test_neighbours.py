from __future__ import annotations

import faiss
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from headstart.auditing import neighbours

ROWS = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)


def test_the_exact_search_finds_what_scikit_learn_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    found = neighbours.nearest(ROWS, 5)
    expected = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(ROWS)
    distances, rows = expected.kneighbors(ROWS)
    assert (found.rows == rows[:, 1:]).all()
    np.testing.assert_allclose(found.cosines, 1 - distances[:, 1:], atol=1e-5)
    assert found.is_exact


def test_the_approximate_search_finds_planted_pairs_and_never_the_row_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "EXACT_UP_TO", 1000)
    random = np.random.default_rng(1)
    rows = random.normal(size=(3000, 160)).astype(np.float32)
    rows[2000:] = rows[:1000] + 0.05 * random.normal(size=(1000, 160)).astype(np.float32)
    found = neighbours.nearest(rows, 3)
    assert not found.is_exact
    assert (found.rows[2000:, 0] == np.arange(1000)).mean() > 0.97
    assert not (found.rows == np.arange(3000)[:, None]).any()


def test_the_approximate_search_does_not_depend_on_the_number_of_cores() -> None:
    rows = np.random.default_rng(0).normal(size=(21_000, 192)).astype(np.float16)
    rows[20_000:] = rows[:1000]
    before, found = faiss.omp_get_max_threads(), []
    try:
        for n_threads in (1, 2):
            faiss.omp_set_num_threads(n_threads)
            found.append(neighbours.nearest(rows, 10))
    finally:
        faiss.omp_set_num_threads(before)
    assert (found[0].rows == found[1].rows).all()
    assert (found[0].cosines == found[1].cosines).all()


def test_few_rows_have_few_neighbours() -> None:
    assert neighbours.nearest(ROWS[:3], 10).rows.shape == (3, 2)


def test_the_vote_is_of_the_neighbours_labels() -> None:
    near = neighbours.Neighbours(np.array([[1, 2], [0, 2], [0, 1]]), np.array([[1.0, 0.5]] * 3, np.float32), True)
    votes = neighbours.vote(near, np.array([0, 1, 1]), 3)
    np.testing.assert_allclose(votes, [[0, 1, 0], [2 / 3, 1 / 3, 0], [2 / 3, 1 / 3, 0]], atol=2e-3)


def test_cosines_of_pairs_are_exact() -> None:
    pairs = np.array([[0, 1], [5, 7]])
    expected = [ROWS[a] @ ROWS[b] / np.linalg.norm(ROWS[a]) / np.linalg.norm(ROWS[b]) for a, b in pairs]
    np.testing.assert_allclose(neighbours.cosines(ROWS, pairs), expected, atol=1e-6)


def test_the_nearest_of_a_label_is_the_nearest_of_all_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 64)
    labels = np.arange(len(ROWS)) % 3
    rows, wanted = np.array([4, 7, 100]), np.array([0, 1, 2])
    units = neighbours.unit(ROWS)
    expected = []
    for row, label in zip(rows, wanted, strict=True):
        allowed = np.flatnonzero((labels == label) & (np.arange(len(ROWS)) != row))
        expected.append(allowed[(units[allowed] @ units[row]).argmax()])
    assert neighbours.nearest_of(ROWS, rows, labels, wanted).tolist() == expected
    assert neighbours.nearest_of(ROWS, rows, labels, np.full(3, 9)).tolist() == [-1, -1, -1]
