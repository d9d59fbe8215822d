"""What every kind of head is held to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from headstart.heads import knn, lda, mlp, novelty, softmax, svm
from headstart.heads.contract import Fitted, Kind, Training
from headstart.heads.design import Design
from headstart.heads.graph import head_graph
from headstart.heads.kinds import KINDS
from headstart.onnx import pieces, runtime
from tests.support.heads import STRENGTHS, clusters, path, probabilities, source_of

N_CLASSES, N_FEATURES = 4, 12
DESCENT = (softmax, svm)  # end where the gradient is small, which is not quite the minimum
NORMALISED = [kind for kind in KINDS.values() if kind.NAME in ("softmax", "svm", "ridge", "prototype")]


EACH_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def serialised(head: Fitted) -> bytes:
    """Return the bytes of a head's part of head.onnx."""
    nodes, initializers = head.onnx()
    return b"".join(
        [*(each.SerializeToString() for each in nodes), *(each.SerializeToString() for each in initializers)]
    )


def apart(one: list[Fitted], other: list[Fitted], features: np.ndarray) -> float:
    """Return the largest difference between probabilities of two paths."""
    both = zip(one, other, strict=True)
    return max(float(np.abs(probabilities(a, features) - probabilities(b, features)).max()) for a, b in both)


@EACH_KIND
def test_it_has_a_name_and_words(kind: Kind) -> None:
    assert KINDS[kind.NAME] is kind
    assert kind.WORDS == kind.WORDS.strip() != ""


def test_the_simpler_kinds_come_first() -> None:
    assert list(KINDS) == ["softmax", "svm", "ridge", "lda", "prototype", "mlp", "knn"]
    assert [kind.NAME for kind in KINDS.values() if not kind.IS_LINEAR] == ["mlp", "knn"]
    assert [kind.NAME for kind in KINDS.values() if not kind.IS_COSTLY] == ["ridge", "lda", "prototype"]


@EACH_KIND
def test_a_path_has_a_head_for_each_strength_of_its_grid_and_tells_of_each(kind: Kind) -> None:
    features, labels = clusters()
    told: list[int] = []
    design = Design(source_of(features, labels), np.arange(len(labels)), hold=True)
    grid = kind.grid([0.1, 1.0, 0.01, 0.1], design.n_rows, design.n_features)
    heads = list(kind.fit_path(design, N_CLASSES, grid, advance=told.append))
    assert len(heads) == len(told) == sum(told) == len(grid) > 0
    assert list(grid) == sorted(set(grid), reverse=True)
    assert {(head.n_features, head.n_classes) for head in heads} == {(N_FEATURES, N_CLASSES)}
    assert len({head.scores(features).tobytes() for head in heads}) == len(heads)


def test_strengths_are_those_of_the_user_where_a_kind_has_a_penalty() -> None:
    grids = {name: tuple(kind.grid([0.1, 1.0], 100, 5)) for name, kind in KINDS.items()}
    assert grids.pop("knn") == (25.0, 9.0, 3.0)
    del grids["mlp"]  # its own decays
    assert {name for name, grid in grids.items() if grid == (1.0, 0.1)} == {"softmax", "svm", "ridge"}
    assert grids["lda"] == (0.9, 0.5, 0.2, 0.05, 0.0)  # shares of the identity
    assert grids["prototype"] == (0.0,)


def test_neighbours_are_fewer_than_rows_and_their_numbers_are_bounded() -> None:
    assert knn.grid(STRENGTHS, 9, 5) == (3.0,)
    assert knn.grid(STRENGTHS, 1000, knn.MAX_NUMBERS // 1000) == (25.0, 9.0, 3.0)
    assert knn.grid(STRENGTHS, 1000, knn.MAX_NUMBERS // 1000 + 1) == ()


@EACH_KIND
def test_every_operator_is_a_plain_one(kind: Kind) -> None:
    features, labels = clusters()
    head = path(kind, source_of(features, labels))[0]
    graph = head_graph(head, novelty.fit(features, labels, N_CLASSES, labels % 2)).graph
    assert {node.op_type for node in graph.node} <= pieces.PLAIN


@EACH_KIND
def test_it_learns(kind: Kind) -> None:
    others, truth = clusters(seed=1)
    for head in path(kind, source_of(*clusters())):
        assert (head.scores(others).argmax(1) == truth).mean() > 0.8


@EACH_KIND
def test_the_graph_says_what_numpy_says(kind: Kind) -> None:
    features, labels = clusters()
    asked, _ = clusters(seed=1)
    scale = novelty.fit(features, labels, N_CLASSES, labels % 2)
    for head in path(kind, source_of(features, labels)):
        shipped = head.calibrated(1.7, np.array([0.5, -1.0, 0.0, 0.2]))
        session = runtime.session(pieces.to_bytes(head_graph(shipped, scale)))
        found, index = session.run(["probabilities", "label_index"], {"features": asked})
        is_same = np.abs(found - probabilities(shipped, asked)).max(1) < 1e-5
        assert is_same.mean() >= (0.99 if kind is knn else 1)  # rows that are equally near
        assert np.array_equal(index, found.argmax(1))


def test_an_image_without_any_direction_has_the_same_neighbours_in_the_graph_and_finite_ones() -> None:
    features, labels = clusters()
    (head,) = path(knn, source_of(features, labels), [3])
    session = runtime.session(pieces.to_bytes(head_graph(head, novelty.fit(features, labels, N_CLASSES, labels % 2))))
    mean = features.mean(0, dtype=np.float64).astype(np.float32)
    (found,) = session.run(["probabilities"], {"features": np.stack([mean, np.zeros_like(mean)])})
    assert np.isfinite(found).all()
    assert np.abs(found[1] - probabilities(head, np.zeros((1, N_FEATURES)))).max() < 1e-5


@EACH_KIND
def test_the_numbers_in_the_graph_are_as_many_as_it_says(kind: Kind) -> None:
    features, labels = clusters(90, 3, 20)
    head = path(kind, source_of(features, labels))[-1]
    found = sum(int(onnx.numpy_helper.to_array(each).size) for each in head.onnx().initializers)
    told = kind.n_numbers(90, 20, 3)
    assert told <= found <= told + (3 + 4 if kind is knn else 0)  # the shift, k, and three further single numbers


@EACH_KIND
def test_calibration_divides_the_scores_and_then_shifts_them(kind: Kind) -> None:
    features, labels = clusters()
    shift = np.array([1.0, -2.0, 0.0, 0.5])
    head = path(kind, source_of(features, labels))[-1]
    scores = head.scores(features)
    assert np.allclose(head.calibrated(2.5).scores(features), scores / 2.5)
    assert np.allclose(head.calibrated(2.5, shift).scores(features), scores / 2.5 + shift)
    twice = head.calibrated(2.5, shift).calibrated(2.0, -shift)
    assert np.allclose(twice.scores(features), (scores / 2.5 + shift) / 2.0 - shift)
    assert head.scores(features).tobytes() == scores.tobytes()  # the head itself is as it was


@EACH_KIND
def test_the_same_rows_give_the_same_bytes(kind: Kind) -> None:
    source = source_of(*clusters())
    one, other = (path(kind, source, training=Training(seed=5)) for _ in range(2))
    assert [serialised(head) for head in one] == [serialised(head) for head in other]


@EACH_KIND
def test_rows_that_are_read_again_give_the_head_of_those_held_in_memory(kind: Kind) -> None:
    features, labels = clusters(2500)  # two blocks
    held, again = (path(kind, source_of(features, labels), hold=hold) for hold in (True, False))
    assert apart(held, again, features[:100]) < (1e-4 if kind in DESCENT or kind is mlp else 1e-5)


@EACH_KIND
def test_fewer_rows_than_features_give_the_same_head_read_again_and_held(kind: Kind) -> None:
    features, labels = clusters(60, 3, 100)
    held, again = (path(kind, source_of(features, labels), hold=hold) for hold in (True, False))
    assert apart(held, again, features) < (1e-3 if kind in DESCENT else 1e-4)


@EACH_KIND
def test_the_order_of_rows_changes_nothing(kind: Kind) -> None:
    features, labels = clusters()
    order = np.random.default_rng(0).permutation(len(labels))
    found = path(kind, source_of(features[order], labels[order], order))
    assert apart(path(kind, source_of(features, labels)), found, features) < (1e-2 if kind is mlp else 1e-4)


@EACH_KIND
def test_renamed_classes_rename_the_answers(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp, "assign_folds", lambda labels, groups, *_: groups % 7)
    features, labels = clusters()
    names = np.array([2, 0, 3, 1])
    renamed = path(kind, source_of(features, names[labels]))
    for one, other in zip(path(kind, source_of(features, labels)), renamed, strict=True):
        assert np.abs(probabilities(one, features) - probabilities(other, features)[:, names]).max() < 1e-4


@pytest.mark.parametrize("kind", NORMALISED, ids=lambda kind: kind.NAME)
def test_every_row_twice_changes_nothing(kind: Kind) -> None:
    features, labels = clusters()
    twice = source_of(np.repeat(features, 2, axis=0), np.repeat(labels, 2))
    assert apart(path(kind, source_of(features, labels)), path(kind, twice), features) < 1e-4


@pytest.mark.parametrize("kind", NORMALISED, ids=lambda kind: kind.NAME)
@pytest.mark.parametrize("n_features", [12, 200])
def test_a_class_of_weight_two_counts_as_if_each_of_its_rows_were_there_twice(kind: Kind, n_features: int) -> None:
    features, labels = clusters(120, n_features=n_features, noise=3)
    times = np.where(labels == 1, 2, 1)
    weighted = path(kind, source_of(features, labels, class_weights=np.array([1.0, 2, 1, 1])))
    repeated = path(kind, source_of(np.repeat(features, times, axis=0), np.repeat(labels, times)))
    assert apart(weighted, repeated, features) < (3e-3 if kind is svm else 5e-4)
    if n_features < len(labels):
        assert apart(weighted, path(kind, source_of(features, labels)), features) > 1e-2


@EACH_KIND
def test_weights_count_by_their_ratio_and_a_heavier_class_is_answered_more_often(kind: Kind) -> None:
    features, labels = clusters(noise=4)
    plain, alike, heavy = (
        path(kind, source_of(features, labels, class_weights=np.array(weights)))
        for weights in ([1.0, 1, 1, 1], [3.0, 3, 3, 3], [1.0, 20, 1, 1])
    )
    assert apart(plain, alike, features) < 1e-6
    if kind.NAME == "prototype":  # the mean of a class is the same, whatever its weight; what moves is the origin
        return
    for one, other in zip(plain, heavy, strict=True):
        of_one, of_other = ((head.scores(features).argmax(1) == 1).mean() for head in (one, other))
        assert of_other > of_one


@EACH_KIND
def test_a_feature_that_never_varies_does_no_harm(kind: Kind) -> None:
    features, labels = clusters()
    others, truth = clusters(seed=1)
    features[:, 3] = others[:, 3] = 7
    for head in path(kind, source_of(features, labels)):
        scores = head.scores(others)
        assert np.isfinite(scores).all()
        assert (scores.argmax(1) == truth).mean() > 0.75


@EACH_KIND
def test_a_class_without_any_row_has_finite_scores_and_is_hardly_ever_answered(kind: Kind) -> None:
    features, labels = clusters()
    for head in path(kind, source_of(features, labels), n_classes=N_CLASSES + 2):
        scores = head.scores(features)
        assert scores.shape == (len(features), N_CLASSES + 2)
        assert np.isfinite(scores).all()
        assert (scores.argmax(1) >= N_CLASSES).mean() < 0.01


@EACH_KIND
def test_more_features_than_rows_are_no_trouble(kind: Kind) -> None:
    features, labels = clusters(60, 3, 300)
    others, truth = clusters(60, 3, 300, seed=1)
    for head in path(kind, source_of(features, labels)):
        scores = head.scores(others)
        assert np.isfinite(scores).all()
        assert (scores.argmax(1) == truth).mean() > 0.9


@EACH_KIND
@pytest.mark.parametrize("n_features", [3, 50])
def test_a_row_of_each_class_gives_finite_scores(kind: Kind, n_features: int) -> None:
    features, labels = clusters(6, 6, n_features)
    for head in path(kind, source_of(features, labels)):
        assert np.isfinite(head.scores(features)).all()


@EACH_KIND
def test_rows_that_are_all_the_same_give_finite_scores(kind: Kind) -> None:
    features = np.full((40, 5), 3.0, np.float32)
    for head in path(kind, source_of(features, np.arange(40) % 2)):
        assert np.isfinite(head.scores(features)).all()


@EACH_KIND
def test_only_kinds_that_know_a_setting_heed_it(kind: Kind) -> None:
    source = source_of(*clusters())
    plain = path(kind, source, training=Training(seed=1))
    for training, heeding in (
        (Training(label_smoothing=0.2, seed=1), {"softmax", "mlp"}),
        (Training(dropout=0.5, seed=1), {"mlp"}),
        (Training(seed=2), {"mlp"}),
    ):
        changed = path(kind, source, training=training)
        is_same = [serialised(head) for head in changed] == [serialised(head) for head in plain]
        assert is_same == (kind.NAME not in heeding)


@pytest.mark.parametrize("kind", [softmax, mlp], ids=lambda kind: kind.NAME)
def test_smoothed_labels_make_less_sure_answers(kind: Kind) -> None:
    features, labels = clusters()
    sure = [
        probabilities(path(kind, source_of(features, labels), training=Training(spread))[-1], features).max(1).mean()
        for spread in (0.0, 0.1, 0.3)
    ]
    assert sure[0] > sure[1] + 0.03 > sure[2] + 0.06


@pytest.mark.parametrize("kind", [*DESCENT], ids=lambda kind: kind.NAME)
def test_another_start_ends_in_the_same_head(kind: Kind) -> None:
    features, labels = clusters()
    (half,) = path(kind, source_of(features[::3], labels[::3]), [1.0])
    for hold in (True, False):
        cold, warm = (path(kind, source_of(features, labels), [0.1], hold=hold, start=start) for start in (None, half))
        assert apart(cold, warm, features) < 1e-3


@pytest.mark.parametrize("kind", [*DESCENT], ids=lambda kind: kind.NAME)
def test_a_strength_has_the_same_head_alone_as_in_a_path(kind: Kind) -> None:
    features, labels = clusters()
    whole = path(kind, source_of(features, labels), STRENGTHS)
    alone = [path(kind, source_of(features, labels), [strength])[0] for strength in STRENGTHS]
    assert apart(whole, alone, features) < 1e-3


@pytest.mark.parametrize("n_features", [64, 200])
def test_discriminant_analysis_of_one_row_a_class_goes_by_the_means_and_not_by_rounding_errors(n_features: int) -> None:
    """Folds of classes of two or three images have learned from one of each."""
    labels = np.arange(100)
    features = np.random.default_rng(0).normal(size=(100, n_features)).astype(np.float32)
    for head in path(lda, source_of(features, labels)):
        assert (head.scores(features).argmax(1) == labels).all()
