"""A handful of images, very many classes, and classes of very unlike sizes."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.base.errors import ParamError
from headstart.heads import (
    knn,
    lda,
    mlp,
    ridge,
    softmax,
    svm,
)
from headstart.heads.contract import Kind
from headstart.heads.criteria import CRITERIA
from headstart.heads.design import Source
from headstart.heads.kinds import KINDS
from headstart.heads.sweep import Selection
from tests.support.heads import (
    clusters,
    level_sets,
    select,
    source_of,
)

ALL = [*KINDS.values()]


def rows_read(selection: Selection, source: Source) -> np.ndarray:
    """Return what the head reads of all images."""
    return source.at(selection.columns).read(np.arange(len(source.labels)))


def is_sound(selection: Selection, source: Source) -> bool:
    """Return whether every figure and score of a selection is a number, and its interval has a width."""
    numbers = [
        *(each.cv_accuracy + each.cv_log_loss + each.temperature for each in selection.candidates),
        *(each.cv_accuracy_se + each.cv_log_loss_se for each in selection.candidates),
        float(np.abs(selection.head.scores(rows_read(selection, source))).max()),
        float(np.abs(selection.out_of_fold).max()),
    ]
    nested = selection.nested
    has_width = nested is None or -1e-9 <= nested.interval.low < nested.interval.high <= 1 + 1e-9
    return bool(np.isfinite(numbers).all()) and has_width


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", [ALL, *([kind] for kind in ALL)], ids=["all", *KINDS])
@pytest.mark.parametrize("n_features", [5, 200])
def test_two_classes_of_four_images(kinds: list[Kind], n_features: int) -> None:
    source = source_of(*clusters(8, 2, n_features))
    selection = select(source, kinds=kinds, folds=5)
    assert selection.n_folds == 4
    assert selection.nested is not None
    assert is_sound(selection, source)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", [ALL, *([kind] for kind in ALL)], ids=["all", *KINDS])
def test_many_classes_of_three_images(kinds: list[Kind]) -> None:
    source = source_of(*clusters(180, 60, 32, noise=0.7))
    columns = {"last": slice(32), "lower": slice(10)}
    selection = select(source, kinds=kinds, folds=5, level_sets=level_sets(columns, 32))
    assert selection.n_folds == 3
    assert selection.nested is not None
    assert is_sound(selection, source)
    assert selection.chosen.cv_accuracy > 0.3


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_very_many_classes_of_three_images() -> None:
    source = source_of(*clusters(900, 300, 128, noise=0.7))
    selection = select(source, kinds=ALL, folds=5)
    assert selection.nested is not None
    assert is_sound(selection, source)
    assert selection.chosen.cv_accuracy > 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_class_a_hundred_times_as_large_as_another(criterion: str) -> None:
    labels = np.repeat([0, 1], [400, 4])
    features = np.random.default_rng(0).normal(size=(404, 10)) + labels[:, None]
    source = source_of(features.astype(np.float32), labels)
    kinds = [kind for kind in ALL if kind is not mlp or criterion == "log_loss"]
    selection = select(source, kinds=kinds, folds=5, criterion=criterion, strengths=(1.0, 1e-2))
    assert selection.n_folds == 4
    assert is_sound(selection, source)


@pytest.mark.filterwarnings("error")
def test_images_that_are_all_right_have_an_interval() -> None:
    source = source_of(*clusters(40, 2, noise=0.01))
    selection = select(source, kinds=[ridge, lda, softmax, svm, knn])
    assert is_sound(selection, source)
    assert selection.nested is not None
    assert selection.nested.accuracy == 1
    assert selection.nested.interval.low < 0.95


@pytest.mark.filterwarnings("error")
def test_a_class_without_any_image_is_no_trouble() -> None:
    source = source_of(*clusters(80, 3))
    selection = select(source, kinds=[kind for kind in ALL if kind is not mlp], n_classes=5)
    assert selection.head.n_classes == 5
    assert is_sound(selection, source)


def test_neighbours_alone_have_no_head_for_very_many_images_which_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "MAX_NUMBERS", 1000)
    source = source_of(*clusters(120, 3))
    with pytest.raises(ParamError) as told:
        select(source, kinds=[knn])
    assert str(told.value) == (
        "train_head.kinds names knn alone, which ships its training images: at most 1,000 numbers. These are 120 images"
        " of 12 features. Another kind was expected. Set train_head.kinds in params.yaml."
    )
    assert {each.kind for each in select(source, kinds=[ridge, knn]).candidates} == {"ridge"}
