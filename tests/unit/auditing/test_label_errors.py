from __future__ import annotations

import numpy as np
from cleanlab.rank import get_label_quality_scores
from hypothesis import given
from hypothesis import strategies as st

from headstart.auditing import label_errors


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 99))
def test_the_margin_is_cleanlabs(n_classes: int, n_images: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(n_classes), n_images)
    labels = draw.integers(0, n_classes, n_images)
    theirs = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    np.testing.assert_allclose((label_errors.margin(probabilities, labels) + 1) / 2, theirs, atol=1e-9)


def test_the_suggestion_is_the_most_probable_other_label() -> None:
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    assert label_errors.suggested(probabilities, np.array([0, 2])).tolist() == [1, 0]
    assert (label_errors.margin(probabilities, np.array([0, 2])) < 0).tolist() == [False, True]


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 99))
def test_what_is_kept_of_the_probabilities_tells_label_margin_and_suggestion(
    n_classes: int, n_images: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.integers(0, 3, (n_images, n_classes)).astype(np.float32)  # with ties
    labels = draw.integers(0, n_classes, n_images)
    known = np.flatnonzero(draw.integers(0, 2, n_images))
    found = label_errors.nobody(n_images)
    label_errors.judge(found, known, labels, lambda some: probabilities[some])
    assert np.flatnonzero(found.is_known).tolist() == known.tolist()
    assert found.predicted(labels)[known].tolist() == probabilities[known].argmax(1).tolist()
    assert found.suggested[known].tolist() == label_errors.suggested(probabilities, labels)[known].tolist()
    np.testing.assert_array_equal((found.own - found.other)[known], label_errors.margin(probabilities, labels)[known])


def test_the_probabilities_of_all_images_are_never_in_memory_together() -> None:
    asked: list[int] = []

    def some(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return np.full((len(rows), 50), 0.02, np.float32)

    n_images = 50_000
    label_errors.judge(label_errors.nobody(n_images), np.arange(n_images), np.zeros(n_images, np.int64), some)
    assert sum(asked) == n_images
    assert max(asked) <= 4096
