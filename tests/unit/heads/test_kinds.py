"""What every kind of head is held to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import softmax

from headstart.heads import novelty, sweep
from headstart.heads.contract import Fitted, Kind
from headstart.heads.design import Design, Source
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.onnx import pieces, runtime

EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
N_CLASSES, N_FEATURES = 4, 12
STRENGTHS = (1.0, 0.1, 0.01)


def data(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping clusters, float32 [N, D] of very unlike scales, and labels int [N]."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    centres = np.random.default_rng(7).normal(size=(N_CLASSES, N_FEATURES))
    features = centres[labels] + 1.2 * random.normal(size=(n, N_FEATURES))
    return (features * np.logspace(-1, 1, N_FEATURES) + 3).astype(np.float32), labels


def path(
    kind: Kind, features: np.ndarray, labels: np.ndarray, strengths: Sequence[float] = STRENGTHS, hold: bool = True
) -> list[Fitted]:
    design = Design(Source(features, None, labels), np.arange(len(labels)), hold)
    return list(kind.fit_path(design, N_CLASSES, strengths))


def probabilities(head: Fitted, features: np.ndarray) -> np.ndarray:
    return softmax(head.scores(features), axis=1)


@EACH_KIND
def test_it_has_a_name_and_words(kind: Kind) -> None:
    assert KINDS[kind.NAME] is kind
    assert kind.WORDS


@EACH_KIND
def test_a_path_has_a_head_for_each_strength_and_tells_of_each(kind: Kind) -> None:
    features, labels = data()
    told: list[int] = []
    design = Design(Source(features, None, labels), np.arange(len(labels)), hold=True)
    heads = list(kind.fit_path(design, N_CLASSES, STRENGTHS, advance=told.append))
    assert len(heads) == sum(told) == len(STRENGTHS)
    assert {(head.n_features, head.n_classes) for head in heads} == {(N_FEATURES, N_CLASSES)}
    assert len({head.scores(features).tobytes() for head in heads}) == len(heads)


@EACH_KIND
def test_it_learns(kind: Kind) -> None:
    features, labels = data()
    others, truth = data(seed=1)
    *_, head = path(kind, features, labels)
    assert (head.scores(others).argmax(1) == truth).mean() > 0.7


@EACH_KIND
def test_the_graph_says_what_numpy_says(kind: Kind) -> None:
    features, labels = data()
    scale = novelty.fit(features, labels, N_CLASSES, labels % 2)
    for head in path(kind, features, labels):
        shipped = head.calibrated(1.7)
        session = runtime.session(pieces.to_bytes(head_graph(shipped, scale)))
        found, index = session.run(["probabilities", "label_index"], {"features": features})
        assert np.abs(found - probabilities(shipped, features)).max() < 1e-5
        assert np.array_equal(index, found.argmax(1))


@EACH_KIND
def test_calibration_divides_the_scores(kind: Kind) -> None:
    features, labels = data()
    *_, head = path(kind, features, labels)
    assert np.allclose(head.calibrated(2.5).scores(features), head.scores(features) / 2.5)


@EACH_KIND
def test_the_same_rows_give_the_same_bytes_held_or_read_again(kind: Kind) -> None:
    features, labels = data()
    first, second, again = (path(kind, features, labels, hold=hold)[-1] for hold in (True, True, False))
    assert first.scores(features).tobytes() == second.scores(features).tobytes()
    assert np.abs(first.scores(features) - again.scores(features)).max() < 1e-6


@EACH_KIND
def test_the_order_of_rows_changes_nothing(kind: Kind) -> None:
    features, labels = data()
    order = np.random.default_rng(0).permutation(len(labels))
    for one, other in zip(path(kind, features, labels), path(kind, features[order], labels[order]), strict=True):
        assert np.abs(probabilities(one, features) - probabilities(other, features)).max() < 1e-2


@EACH_KIND
def test_renamed_classes_rename_the_answers(kind: Kind) -> None:
    features, labels = data()
    names = np.array([2, 0, 3, 1])
    for one, other in zip(path(kind, features, labels), path(kind, features, names[labels]), strict=True):
        assert np.abs(probabilities(one, features) - probabilities(other, features)[:, names]).max() < 1e-2


@EACH_KIND
def test_a_feature_that_never_varies_does_no_harm(kind: Kind) -> None:
    features, labels = data()
    features[:, 3] = 7
    for head in path(kind, features, labels):
        assert np.isfinite(head.scores(features)).all()


@EACH_KIND
def test_another_start_ends_in_the_same_head(kind: Kind) -> None:
    features, labels = data()
    source, everything = Source(features, None, labels), np.arange(len(labels))
    (cold,) = kind.fit_path(Design(source, everything, hold=True), N_CLASSES, [0.1])
    half = sweep.fit(kind, source, N_CLASSES, 0.1, everything[::2])
    (warm,) = kind.fit_path(Design(source, everything, hold=True), N_CLASSES, [0.1], half)
    assert np.abs(probabilities(cold, features) - probabilities(warm, features)).max() < 1e-2
