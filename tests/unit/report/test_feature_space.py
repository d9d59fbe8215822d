from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from headstart.report import feature_space, occlusion


def test_the_nearest_are_those_of_scikit_learn_also_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_space, "_BLOCK_ROWS", 7)
    random = np.random.default_rng(0)
    rows, queries = random.normal(size=(50, 8)), random.normal(size=(5, 8))
    theirs = NearestNeighbors(metric="cosine").fit(rows).kneighbors(queries, 3, return_distance=False)
    assert np.array_equal(feature_space.nearest(queries, rows, 3), theirs)
    assert feature_space.nearest(queries, rows[:2], 3).shape == (5, 2)


def test_the_principal_components_are_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(80, 12)).astype(np.float32) * np.arange(1, 13)
    ours, theirs = feature_space.pca(features), PCA(2, svd_solver="full").fit_transform(features.astype(np.float64))
    for column in range(2):
        assert np.allclose(np.abs(ours[:, column]), np.abs(theirs[:, column]), atol=1e-3)
        assert ours[np.abs(ours[:, column]).argmax(), column] > 0
    assert np.array_equal(ours, feature_space.pca(features))


@pytest.mark.parametrize("shape", [(3, 1), (4, 2), (2, 5)])
def test_a_map_of_almost_nothing_is_a_map(shape: tuple[int, int]) -> None:
    assert feature_space.pca(np.random.default_rng(0).normal(size=shape)).shape == (shape[0], 2)


@pytest.mark.slow
def test_umap_keeps_clusters_apart_and_gives_the_same_map_again() -> None:
    pytest.importorskip("umap", reason="umap-learn is not installed: pip install 'headstart[umap]'")
    random = np.random.default_rng(0)
    features = np.concatenate([random.normal(size=(40, 16)), random.normal(size=(40, 16)) + 8]).astype(np.float32)
    places = feature_space.umap(features, 0)
    one, other = places[:40], places[40:]
    assert np.linalg.norm(one.mean(0) - other.mean(0)) > 3 * max(*one.std(0), *other.std(0))
    assert np.array_equal(places, feature_space.umap(features, 0))


def test_what_an_answer_rests_on_is_where_covering_it_changes_the_answer() -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[8:24, 40:56] = 255  # what the model below looks at

    def bright(images: np.ndarray) -> np.ndarray:
        share = (images == 255).mean((1, 2, 3))
        return np.column_stack([1 - share, share])

    heat = occlusion.occlusion(pixels, bright, 1)
    assert heat.shape == (occlusion.GRID, occlusion.GRID)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (8 <= row * 8 < 24, 40 <= column * 8 < 56) == (True, True)
    assert heat[6, 1] == 0
    assert occlusion.occlusion(pixels, bright, 0).max() <= 0
