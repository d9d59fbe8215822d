from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from headstart.base.errors import DataError
from headstart.heads import design, sweep
from headstart.heads import softmax as softmax_kind
from headstart.heads.calibration import fit_temperature
from headstart.heads.contract import Fitted
from headstart.heads.design import PROCESS_MB, Source
from headstart.heads.folds import assign_folds, draw


def blobs(n: int = 240, n_features: int = 12, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return overlapping clusters: float32 [N, D] of very unlike scales, and labels int [N]."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    centres = random.normal(size=(n_classes, n_features))
    features = centres[labels] + 1.5 * random.normal(size=(n, n_features))
    return (features * np.logspace(-2, 2, n_features) + 5).astype(np.float32), labels


def select(features: np.ndarray, labels: np.ndarray, **changes: object) -> sweep.Selection:
    options: dict[str, object] = {
        "kind": softmax_kind,
        "strengths": [1e-3, 1e-2, 1e-1, 1],
        "folds": 4,
        "seed": 0,
        "memory_mb": 1000,
        **changes,
    }
    groups, views = options.pop("groups", np.arange(len(labels))), options.pop("views", None)
    source = Source(features, views, labels)  # type: ignore[arg-type]
    return sweep.select(source, groups, int(labels.max()) + 1, **options)  # type: ignore[arg-type]


def fit(features: np.ndarray, labels: np.ndarray, strength: float, hold: bool = True) -> Fitted:
    return sweep.fit(softmax_kind, Source(features, None, labels), 3, strength, hold=hold)


def probabilities(head: Fitted, features: np.ndarray) -> np.ndarray:
    return softmax(head.scores(features), axis=1)


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10])
def test_a_fit_is_that_of_scikit_learn(strength: float, hold: bool) -> None:
    features, labels = blobs(n=5000)
    found = probabilities(fit(features, labels, strength, hold), features)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    reference = LogisticRegression(C=1 / (strength * len(labels)), tol=1e-8, max_iter=5000).fit(scaled, labels)
    assert np.abs(found - reference.predict_proba(scaled)).max() < 5e-3


def test_the_standardiser_and_the_temperature_are_folded_into_the_head() -> None:
    features, labels = blobs()
    selection = select(features, labels)
    expected = fit(features, labels, selection.chosen.strength).scores(features) / selection.chosen.temperature
    found = selection.head.scores(features)
    spread = (found - found.mean(1, keepdims=True)) - (expected - expected.mean(1, keepdims=True))
    assert np.abs(spread).max() < 2e-2


def test_the_strength_of_lowest_held_out_log_loss_is_chosen() -> None:
    selection = select(*blobs())
    assert sum(candidate.chosen for candidate in selection.candidates) == 1
    assert selection.chosen.cv_log_loss == min(candidate.cv_log_loss for candidate in selection.candidates)


def test_noise_is_not_learned() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(200, 100)).astype(np.float32), np.arange(200) % 2
    selection = select(features, labels, strengths=[1e-4, 1e2])
    assert selection.chosen.strength == 1e2
    assert abs(selection.candidates[0].cv_accuracy - 0.5) < 0.15


@pytest.fixture
def fold(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The fold of each of the blobs, whatever their labels."""
    dealt = np.arange(240) % 4
    monkeypatch.setattr(sweep, "assign_folds", lambda *_: dealt)
    return dealt


def test_out_of_fold_scores_never_saw_their_own_label(fold: np.ndarray) -> None:
    features, labels = blobs()
    before = select(features, labels, strengths=[1e-2]).out_of_fold_logits
    labels[fold == 0] = (labels[fold == 0] + 1) % 3
    after = select(features, labels, strengths=[1e-2]).out_of_fold_logits
    assert np.array_equal(before[fold == 0], after[fold == 0])
    assert not np.array_equal(before[fold != 0], after[fold != 0])


@given(st.integers(0, 10_000), st.integers(2, 6), st.lists(st.integers(1, 6), min_size=12, max_size=30))
@settings(max_examples=30)
def test_folds_separate_no_group_and_have_every_class(seed: int, folds: int, sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 2
    assignment = assign_folds(labels, groups, folds, seed)
    assert all(len(set(assignment[groups == group])) == 1 for group in set(groups))
    assert sorted(set(assignment)) == list(range(assignment.max() + 1))


def test_fewer_folds_where_a_class_has_fewer_images() -> None:
    labels = np.array([0] * 20 + [1] * 3)
    assert assign_folds(labels, np.arange(23), 5, 0).max() == 2


def test_a_class_of_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="a class has a single group of images"):
        assign_folds(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 3]), 2, 0)


def test_the_temperature_undoes_a_known_overconfidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    cumulated = softmax(logits, axis=1).cumsum(1)
    labels = (random.random((20_000, 1)) > cumulated).sum(1).clip(0, 3)
    assert fit_temperature(logits * 3, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)


def test_calibration_lowers_the_out_of_fold_log_loss_or_leaves_it() -> None:
    features, labels = blobs()
    selection = select(features, labels)
    chosen = selection.chosen
    raw = log_loss(labels, softmax(selection.out_of_fold_logits, axis=1))
    assert chosen.cv_log_loss <= raw + 1e-9
    calibrated = softmax(selection.out_of_fold_logits / chosen.temperature, axis=1)
    assert chosen.cv_log_loss == pytest.approx(log_loss(labels, calibrated), abs=1e-6)


def test_the_same_data_give_the_same_bytes() -> None:
    features, labels = blobs()
    first, second = (select(features, labels).head for _ in range(2))
    assert first.scores(features).tobytes() == second.scores(features).tobytes()


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features, labels = blobs()
    features[:, 3] = 7
    assert np.isfinite(select(features, labels).head.scores(features)).all()


def test_progress_reaches_the_number_of_fits() -> None:
    told: list[int] = []
    features, labels = blobs()
    select(features, labels, strengths=[1], advance=told.append)
    assert sum(told) == 5


# Memory


class Counted:
    """Rows that count how many are in hand."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.most = array, array.shape, 0

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.most = max(self.most, len(rows))
        found: np.ndarray = self.array[rows]
        return found


def test_what_memory_does_not_hold_is_cross_validated_in_part_and_fitted_whole() -> None:
    features, labels = blobs(n=30_000, n_features=40)
    noise = np.random.default_rng(0)
    labels = np.where(noise.random(30_000) < 0.2, noise.integers(0, 3, 30_000), labels)
    rows = Counted(features)
    part = select(rows, labels, memory_mb=PROCESS_MB + 2)
    whole = select(features, labels)
    assert len(whole.validated) == 30_000
    assert 5000 < len(part.validated) < 15_000
    assert rows.most <= 2048  # nothing reads more at a time
    assert part.chosen.strength == whole.chosen.strength
    apart = probabilities(part.head, features) - probabilities(whole.head, features)
    assert np.abs(apart).max() < 0.02
    assert np.abs(apart).mean() < 0.002


@pytest.mark.slow
def test_the_part_and_the_whole_are_never_in_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MAX_VALIDATED", 190_000)
    features, labels = blobs(n=200_000, n_features=40)  # 52 MB to the budget's reckoning, 33 of them the rows
    tracemalloc.start()
    try:
        found = select(features, labels, memory_mb=PROCESS_MB + 53, folds=2, strengths=[1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.validated) == 190_000
    assert peak < 53e6


def test_the_bytes_follow_from_memory_mb_and_not_from_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(n=30_000, n_features=40)
    found = []
    for cores in (1, 3):
        for module in (sweep, design):
            monkeypatch.setattr(module, "n_cores", lambda cores=cores: cores)
        found.append(select(features, labels, memory_mb=PROCESS_MB + 2).head)
    assert found[0].scores(features).tobytes() == found[1].scores(features).tobytes()


@given(st.integers(0, 1000), st.integers(1, 200), st.lists(st.integers(1, 9), min_size=8, max_size=40))
@settings(max_examples=40)
def test_a_part_has_whole_groups_of_every_class(seed: int, n_images: int, sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 3
    drawn = draw(labels, groups, n_images, seed)
    assert len(drawn) <= max(n_images, sum(sorted(sizes)[-6:]))
    assert len(drawn) == len(set(drawn))
    for group in set(groups[drawn]):
        assert set(np.flatnonzero(groups == group)) <= set(drawn)
    for label in range(3):
        assert len(set(groups[drawn][labels[drawn] == label])) >= min(2, len(set(groups[labels == label])))


# Views


def test_views_are_trained_on_and_never_scored() -> None:
    features, labels = blobs()
    random = np.random.default_rng(1)
    views = features[:, None] + random.normal(size=(len(labels), 3, features.shape[1])).astype(np.float32)
    with_views = select(features, labels, views=views)
    both = np.concatenate([features[:, None], views], axis=1).reshape(-1, features.shape[1])
    head = fit(both, np.repeat(labels, 4), with_views.chosen.strength)
    expected = probabilities(head.calibrated(with_views.chosen.temperature), features)
    assert np.abs(probabilities(with_views.head, features) - expected).max() < 1e-2
    assert with_views.out_of_fold_logits.shape == (len(labels), 3)


def test_views_of_a_held_out_image_are_not_trained_on(fold: np.ndarray) -> None:
    features, labels = blobs()
    views = np.repeat(features[:, None], 2, axis=1)
    before = select(features, labels, strengths=[1e-2], views=views).out_of_fold_logits
    views[fold == 0] += 100
    after = select(features, labels, strengths=[1e-2], views=views).out_of_fold_logits
    assert np.array_equal(before[fold == 0], after[fold == 0])
    assert not np.array_equal(before[fold != 0], after[fold != 0])


def test_a_few_images_that_are_all_right_do_not_make_a_model_sure_of_everything() -> None:
    labels = np.arange(9) % 3
    logits = 2.0 * np.eye(3)[labels]
    assert fit_temperature(logits, labels) < 0.06
    assert 0.4 < fit_temperature(logits, labels, caution=1.0) < 1


def test_caution_fades_with_the_number_of_images() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 20_000)
    logits = 6 * (np.eye(3)[labels] + random.normal(size=(20_000, 3)))
    assert fit_temperature(logits, labels, caution=1.0) == pytest.approx(fit_temperature(logits, labels), rel=1e-3)
