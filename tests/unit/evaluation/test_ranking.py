from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from headstart.evaluation.ranking import precision_recall, roc


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=60))
def test_both_curves_are_those_of_scikit_learn_also_with_ties(pairs: list[tuple[bool, int]]) -> None:
    is_positive, scores = np.array([each for each, _ in pairs]), np.array([each for _, each in pairs]) / 6
    if len(set(is_positive)) < 2:
        return
    false_alarms, hits, _ = roc_curve(is_positive, scores, drop_intermediate=False)
    ours = roc(is_positive, scores)
    assert np.allclose(ours.false_positive_rate, false_alarms)
    assert np.allclose(ours.true_positive_rate, hits)
    assert ours.area == pytest.approx(roc_auc_score(is_positive, scores))
    precision, recall, _ = precision_recall_curve(is_positive, scores)
    found = precision_recall(is_positive, scores)
    assert np.allclose(found.precision, precision[:-1][::-1])  # theirs has a point (0, 1) more
    assert np.allclose(found.recall, recall[:-1][::-1])
    assert found.average_precision == pytest.approx(average_precision_score(is_positive, scores))


def test_a_perfect_ranking_has_both_areas_one_and_its_opposite_the_area_nought() -> None:
    is_positive, scores = np.array([True, True, False]), np.array([0.9, 0.8, 0.1])
    assert roc(is_positive, scores).area == 1
    assert precision_recall(is_positive, scores).average_precision == 1
    assert roc(is_positive, -scores).area == 0
