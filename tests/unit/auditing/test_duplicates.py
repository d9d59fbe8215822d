from __future__ import annotations

import time

import numpy as np
import pytest

from headstart.auditing import copies, duplicates, neighbours
from tests.support.images import photograph

N_IMAGES, N_COPIES = 120, 12
ORIGINALS = np.stack([photograph(number, 96, 96) for number in range(N_IMAGES)])


def backbone(pixels: np.ndarray) -> np.ndarray:
    """Coarse pictures, not mirrored or mirrored alike: features that a copy hardly changes."""
    small = pixels.reshape(len(pixels), 8, 12, 8, 12, 3).mean((2, 4))
    return (small + small[:, :, ::-1]).reshape(len(pixels), -1).astype(np.float32)


def test_planted_copies_are_found_and_nothing_else() -> None:
    draw = np.random.default_rng(3)
    kinds = list(copies.KINDS.values())
    made = np.stack([kinds[row % len(kinds)](ORIGINALS[row], draw) for row in range(N_COPIES)])
    everything = np.concatenate([ORIGINALS, made])
    labels = np.arange(len(everything)) % 2
    labels[N_IMAGES:] = labels[:N_COPIES]
    rows = backbone(everything)
    pairs, calibration = duplicates.find(
        rows, labels, 2, neighbours.nearest(rows, 10), lambda wanted: everything[wanted], backbone, seed=0
    )
    assert sorted(map(tuple, pairs.rows.tolist())) == [(row, N_IMAGES + row) for row in range(N_COPIES)]
    assert set(calibration.recall) == set(copies.KINDS)
    assert calibration.recall["mirrored"] == 1
    assert calibration.n_false <= 1  # a random pair may be a planted one
    assert 0 < calibration.false_positive_rate < 1e-5
    clusters = duplicates.clusters(pairs.rows, len(everything))
    assert [rows.tolist() for rows in clusters] == [[row, N_IMAGES + row] for row in range(N_COPIES)]


def test_three_copies_are_one_cluster() -> None:
    found = duplicates.clusters(np.array([[7, 2], [2, 9], [4, 5]]), 20)
    assert [rows.tolist() for rows in found] == [[2, 7, 9], [4, 5]]
    assert duplicates.clusters(np.zeros((0, 2), np.int64), 20) == []


def test_classes_of_one_or_two_images_have_the_scale_of_all() -> None:
    labels = np.minimum(np.arange(40) // 2, 10)
    rows = backbone(ORIGINALS[:40])
    pairs, calibration = duplicates.find(
        rows, labels, 11, neighbours.nearest(rows, 5), lambda wanted: ORIGINALS[wanted], backbone, seed=0
    )
    assert not len(pairs.rows)
    assert len(set(calibration.correlations[:10])) == 1


def test_candidates_beyond_the_limit_are_cut_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_PAIRS", 5)
    rows = backbone(ORIGINALS[:40])
    near = neighbours.nearest(rows, 5)
    pairs, is_cut = duplicates._candidates(rows, near, floor=-1.0)
    assert (len(pairs), is_cut) == (5, True)
    nearest = np.unravel_index(near.cosines.argmax(), near.cosines.shape)
    assert sorted(pairs[0]) == sorted([nearest[0], near.rows[nearest]])


@pytest.mark.parametrize("n_images", [3, 4])
def test_a_copy_is_found_in_a_class_of_few_images(n_images: int) -> None:
    """Few pairs, drawn often, are no scale: one copy among them would raise it above itself."""
    copy = copies.compressed(ORIGINALS[0], np.random.default_rng(3))
    everything = np.concatenate([ORIGINALS, copy[None]])
    labels = np.ones(N_IMAGES + 1, np.int64)
    labels[[*range(n_images - 1), N_IMAGES]] = 0
    rows = backbone(everything)
    pairs, _ = duplicates.find(
        rows, labels, 2, neighbours.nearest(rows, 10), lambda wanted: everything[wanted], backbone, seed=0
    )
    assert pairs.rows.tolist() == [[0, N_IMAGES]]


def test_hundred_thousand_clusters_are_told_apart_at_once() -> None:
    """A pass over all images for each cluster would take minutes."""
    rows = np.arange(200_000).reshape(-1, 2)
    began = time.perf_counter()
    found = duplicates.clusters(rows, 200_000)
    assert time.perf_counter() - began < 5
    assert len(found) == 100_000
    assert (np.array(found) == rows).all()
