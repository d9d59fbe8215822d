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
