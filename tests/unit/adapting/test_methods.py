from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from headstart.adapting import methods, moved
from headstart.adapting.methods import METHODS, Adapted, Domains
from headstart.adapting.moved import Map, behind
from headstart.heads.graph import head_graph
from headstart.heads.linear import Linear
from headstart.heads.novelty import Novelty
from headstart.onnx import runtime
from headstart.onnx.pieces import to_bytes
from headstart.param_types import ADAPT_METHODS
from tests.support.domains import accuracy, domains, drawn, mixed, shifted

MOVING = ("standardise", "coral", "mmd", "transport", "self_train")


def moved_target(of: Domains, adapted: Adapted) -> np.ndarray:
    assert adapted.map is not None
    return adapted.map(of.target)


def correlation(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the covariance of rows in units of the scales of `like`."""
    return np.asarray(np.cov(rows / like.std(0), rowvar=False))


def test_params_yaml_knows_every_method() -> None:
    assert set(METHODS) == {"none", *ADAPT_METHODS}


def test_standardising_undoes_any_change_of_place_and_scale() -> None:
    of, _ = domains()
    same = replace(of, target=shifted(of.source))
    found = methods.standardise(same).whole.scores(same.target)
    np.testing.assert_allclose(found, of.head.scores(of.source), atol=1e-9)


def test_a_feature_that_never_varies_is_moved_and_not_divided_by_nothing() -> None:
    of, _ = domains()
    of.target[:, 3] = 7.0
    assert np.isfinite(methods.coral(of).whole.scores(of.target)).all()


@pytest.mark.parametrize("method", ["coral", "transport"])
def test_the_target_gets_the_covariance_of_the_source(method: str) -> None:
    source, labels = drawn(6000, 0)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0]
    of, _ = domains()
    of = replace(of, source=source, labels=labels, target=drawn(6000, 1)[0] / source.std(0) @ turn * source.std(0))
    found = moved_target(of, METHODS[method](of))
    np.testing.assert_allclose(found.mean(0), source.mean(0), atol=1e-6)
    before = np.abs(correlation(methods.standardise(of).map(of.target), source) - correlation(source, source)).max()  # type: ignore[misc]
    after = np.abs(correlation(found, source) - correlation(source, source)).max()
    assert after < 0.03 < 0.3 < before


def test_optimal_transport_moves_no_farther_than_whitening_and_colouring() -> None:
    of, _ = domains(600, 600)
    start = moved_target(of, methods.standardise(of))

    def far(name: str) -> float:
        return float(np.square((moved_target(of, METHODS[name](of)) - start) / of.source.std(0)).sum())

    assert far("transport") <= far("coral") * 1.001


def test_the_discrepancy_is_lower_and_its_slope_right() -> None:
    of, _ = domains()
    widths = np.array([1.0, 4.0])
    random = np.random.default_rng(0)
    rows, others, step = random.normal(size=(9, 3)), random.normal(size=(7, 3)), random.normal(size=(9, 3))
    _, slope = methods._discrepancy(rows, others, widths)
    ends = [methods._discrepancy(rows + sign * 1e-5 * step, others, widths)[0] for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float((slope * step).sum()), rel=1e-5)
    units = of.source.std(0)

    def apart(adapted: Adapted) -> float:
        return methods._discrepancy(moved_target(of, adapted) / units, of.source / units, 12 * widths)[0]

    assert apart(methods.mmd(of)) < apart(methods.standardise(of))


@pytest.mark.parametrize("method", MOVING)
def test_a_head_that_has_lost_its_way_is_as_good_as_before(method: str) -> None:
    of, truth = domains()
    plain, usual = accuracy(of.head, of.target, truth), accuracy(of.head, drawn(150, 1)[0], truth)
    assert plain < 0.6 < 0.9 < usual
    assert accuracy(METHODS[method](of).whole, of.target, truth) > usual - 0.08


@pytest.mark.parametrize("method", MOVING)
def test_weights_keep_another_mix_of_classes_from_bending_the_map(method: str) -> None:
    of, truth = domains(240, 450)
    some = mixed(truth, 15)
    of, truth = replace(of, target=of.target[some]), truth[some]
    true_mix = np.bincount(truth) / len(truth)
    weighted = replace(of, weights=3 * true_mix[of.labels])
    without, allowed = (accuracy(METHODS[method](each).whole, of.target, truth) for each in (of, weighted))
    assert without < 0.85 < 0.9 < allowed


def test_label_shift_finds_the_mix_and_answers_for_it() -> None:
    (source, labels), (target, truth) = drawn(3000, 0, noise=3.0), drawn(3000, 1, noise=3.0)
    some = mixed(truth, 150)
    truth = truth[some]
    of = replace(domains(kind="lda")[0], source=source, labels=labels, target=target[some])
    of = replace(of, head=of.fit(source, labels))
    found = methods.label_shift(of).whole
    plain = softmax(of.head.scores(of.target), axis=1).mean(0)
    after = softmax(found.scores(of.target), axis=1).mean(0)
    true_mix = np.bincount(truth) / len(truth)
    assert np.abs(after - true_mix).max() < 0.03 < np.abs(plain - true_mix).max()
    assert accuracy(found, of.target, truth) > accuracy(of.head, of.target, truth) + 0.02


def test_no_way_to_adapt_changes_what_it_is_given() -> None:
    of, _ = domains()
    before = [each.copy() for each in (of.source, of.labels, of.target)]
    for method in METHODS.values():
        method(of)
    for one, other in zip(before, (of.source, of.labels, of.target), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["ridge", "mlp", "knn"])
@pytest.mark.parametrize("method", METHODS)
def test_the_graph_of_an_adapted_head_gives_what_numpy_gives(kind: str, method: str, tmp_path: Path) -> None:
    of, _ = domains(kind=kind)
    novelty = Novelty(np.eye(12, 3, dtype=np.float32), np.array([0.1, 0.5], np.float32))
    file = tmp_path / "head.onnx"
    file.write_bytes(to_bytes(head_graph(of.head, novelty)))
    head, known = moved.read(file)
    assert isinstance(head, Linear) == (kind == "ridge")
    np.testing.assert_array_equal(known.centres, novelty.centres)
    adapted = METHODS[method](replace(of, head=head)).whole
    assert isinstance(adapted, Linear) == (kind == "ridge")
    graph = to_bytes(head_graph(adapted, known))
    rows = of.target.astype(np.float32)
    found = runtime.session(graph).run(["probabilities", "novelty"], {"features": rows})
    np.testing.assert_allclose(found[0], softmax(adapted.scores(rows), axis=1), atol=2e-4)
    np.testing.assert_array_equal(found[1], novelty.of(rows))  # of features as they are


def test_a_map_in_front_of_a_linear_head_is_folded_into_it() -> None:
    random = np.random.default_rng(0)
    through = Map(random.normal(size=5), random.normal(size=5), random.normal(size=(5, 2)), random.normal(size=(2, 5)))
    head, rows = Linear(random.normal(size=(5, 3)), random.normal(size=3)), random.normal(size=(7, 5))
    np.testing.assert_allclose(behind(head, through).scores(rows), head.scores(through(rows)))


def test_a_head_behind_a_map_can_be_calibrated(tmp_path: Path) -> None:
    of, _ = domains(kind="mlp")
    file = tmp_path / "head.onnx"
    novelty = Novelty(np.eye(12, 3, dtype=np.float32), np.array([0.1, 0.5], np.float32))
    file.write_bytes(to_bytes(head_graph(of.head, novelty)))
    adapted = methods.standardise(replace(of, head=moved.read(file)[0])).whole
    twice = adapted.calibrated(2.0, np.array([1.0, 0.0, 0.0])).calibrated(0.5, np.array([0.0, 1.0, 0.0]))
    np.testing.assert_allclose(twice.scores(of.target), adapted.scores(of.target) + np.array([2.0, 1.0, 0.0]))
    assert (twice.n_features, twice.n_classes) == (12, 3)
