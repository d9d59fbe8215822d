from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import design
from headstart.heads.design import PROCESS_MB, Budget, Design
from tests.support.heads import clusters, source_of

WEIGHTS = np.array([1.0, 4, 1, 0.5])
EACH_PASS = pytest.mark.parametrize("hold", [True, False], ids=["held", "read again"])


def expected_rows(features: np.ndarray, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    each = np.ones(len(labels)) if weights is None else weights[labels]
    mean = np.average(features.astype(np.float64), axis=0, weights=each)
    scale = np.sqrt(np.average(np.square(features - mean), axis=0, weights=each))
    rows: np.ndarray = (features - mean) / scale
    return rows


@EACH_PASS
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["all alike", "weighted"])
def test_rows_are_standardised_by_the_weighted_mean_and_scale(weights: np.ndarray | None, hold: bool) -> None:
    features, labels = clusters(5000)
    found = Design(source_of(features, labels, class_weights=weights), np.arange(5000), hold)
    rows, of = found.rows_and_labels()
    assert rows.dtype == np.float32
    assert np.abs(rows - expected_rows(features, labels, weights)).max() < 1e-4
    assert np.array_equal(of, labels)
    assert found.is_held == hold
    assert all((block[:, -1] == 1).all() for block, _ in found.blocks())
    assert found.weights_of(labels).mean() == pytest.approx(1)


def test_only_the_images_that_are_named_are_read() -> None:
    features, labels = clusters()
    images = np.arange(0, 400, 3)
    features[1::3] = np.nan
    rows, of = Design(source_of(features, labels), images, hold=True).rows_and_labels()
    assert np.isfinite(rows).all()
    assert np.array_equal(of, labels[images])


def test_an_image_has_its_own_row_and_then_those_of_its_views() -> None:
    features, labels = clusters(40)
    views = np.stack([features + 1, features + 2], axis=1)
    found = Design(source_of(features, labels, views=views), np.arange(40), hold=True)
    rows, of = found.rows_and_labels()
    assert found.n_rows == len(rows) == 120
    assert np.array_equal(of, np.repeat(labels, 3))
    raw = rows * found.scale + found.mean
    assert np.abs(raw.reshape(40, 3, -1) - np.stack([features, features + 1, features + 2], axis=1)).max() < 1e-4


@EACH_PASS
@pytest.mark.parametrize("shape", [(400, 4, 12), (40, 4, 90)], ids=["more rows", "more features"])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["all alike", "weighted"])
def test_axes_are_those_of_the_weighted_covariance(
    weights: np.ndarray | None, shape: tuple[int, int, int], hold: bool
) -> None:
    features, labels = clusters(*shape)
    found = Design(source_of(features, labels, class_weights=weights), np.arange(len(labels)), hold)
    rows, _ = found.rows_and_labels()
    each = found.weights_of(labels)
    covariance = (rows.T * each) @ rows.astype(np.float64) / len(rows)
    basis = found.basis
    axes = basis.vectors(np.eye(len(basis.variances)))
    assert (np.diff(basis.variances) <= 0).all()
    assert np.abs(axes @ np.diag(basis.variances) @ axes.T - covariance).max() < 1e-5
    wide = basis.variances > 1e-3  # the others are noise of float32
    assert np.abs(axes[:, wide].T @ axes[:, wide] - np.eye(wide.sum())).max() < 1e-3
    some = np.random.default_rng(0).normal(size=(shape[2], 3))
    assert np.abs(basis.along(some) - axes.T @ some).max() < 1e-6
    if hold:
        assert np.abs(found.coordinates[:, wide] - rows @ axes[:, wide]).max() < 1e-3


def test_some_columns_of_a_design_are_the_design_of_these_columns() -> None:
    features, labels = clusters(3000)
    source, columns = source_of(features, labels, class_weights=WEIGHTS), np.array([2, 3, 7])
    part = Design(source, np.arange(3000), hold=True).at(columns)
    own = Design(source.at(columns), np.arange(3000), hold=True)
    assert part.n_features == own.n_features == 3
    for one, other in (
        (part.rows_and_labels()[0], own.rows_and_labels()[0]),
        (part.mean, own.mean),
        (part.scale, own.scale),
        (part.basis.variances, own.basis.variances),
        *zip(part.class_sums(4), own.class_sums(4), strict=True),
    ):
        assert np.allclose(one, other, atol=1e-3, rtol=1e-6)


def test_class_sums_are_weighted_and_have_a_class_without_rows() -> None:
    features, labels = clusters()
    found = Design(source_of(features, labels, class_weights=WEIGHTS), np.arange(400), hold=True)
    rows, _ = found.rows_and_labels()
    counts, sums = found.class_sums(5)
    each = WEIGHTS / WEIGHTS.mean()
    assert counts == pytest.approx([*(100 * each), 0], rel=1e-6)
    expected = np.array([each[label] * rows[labels == label].sum(0, dtype=np.float64) for label in range(4)])
    assert np.abs(sums[:4] - expected).max() < 1e-3
    assert not sums[4].any()


def test_bytes_do_not_depend_on_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = clusters(20_000)
    found = []
    for cores in (1, 5):
        monkeypatch.setattr(design, "n_cores", lambda cores=cores: cores)
        of = Design(source_of(features, labels), np.arange(20_000), hold=False)
        found.append((of.mean.tobytes(), of.scale.tobytes(), *(part.tobytes() for part in of.class_sums(4))))
    assert found[0] == found[1]


def test_a_budget_has_what_the_process_leaves() -> None:
    budget = Budget(PROCESS_MB + 8)
    assert budget.n_bytes == 8_000_000
    assert budget.holds(1000, 1999)
    assert not budget.holds(1000, 2000)
    assert budget.how_many(2e6) == 4
    assert Budget(PROCESS_MB).how_many(10) == 1
