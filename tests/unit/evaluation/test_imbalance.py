from __future__ import annotations

import numpy as np
import pytest

from headstart.evaluation import imbalance, metrics
from headstart.evaluation.folder import TestScores

CLASSES, COUNTS = ["good", "torn"], np.array([400, 4])


def scores(labels: np.ndarray, predicted: np.ndarray, counts: np.ndarray) -> TestScores:
    found = metrics.evaluate(
        labels,
        np.eye(2, dtype=np.float32)[predicted] * 0.8 + 0.1,
        np.arange(len(labels)).astype(str),
        majority_label=0,
        bootstrap_samples=100,
        ece_bins=15,
        seed=0,
    ).scores
    told = {"coverage": 0.8, "selective_accuracy": 0.99, "abstain_below": 0.9, "wanted_accuracy": 0.99}
    return TestScores.model_validate({**found, **told, "ece_before": 0.1, "class_ratio": imbalance.ratio(counts)})


def test_who_always_says_the_large_class_gets_half_and_not_nearly_everything() -> None:
    test = scores(np.repeat([0, 1], [71, 1]), np.zeros(72, int), COUNTS)
    assert test.accuracy == test.majority_accuracy == pytest.approx(71 / 72, abs=1e-6)
    assert test.headline.name == "balanced accuracy"
    assert test.headline.value == 0.5
    assert test.headline.low < 0.5 < 0.8 < test.headline.high
    assert test.headline.told(72).startswith("50.00% balanced accuracy (95% interval ")
    assert test.headline.told(72).endswith(" on 72 held-out images")


def test_the_warning_says_why() -> None:
    assert imbalance.warning(CLASSES, COUNTS, 0.9861) == (
        "classes differ in size: 'good' has 400 images in train and val, 'torn' has 4. Always answering 'good' would be"
        " right on 98.61% of the held-out images, so the headline is balanced accuracy, the mean recall of the classes;"
        " always answering one class has 50.00% of it. To favour rare classes, set train_head.select_by,"
        " class_weight or logit_adjustment."
    )


@pytest.mark.parametrize("counts", [[100, 100], [120, 40]])
def test_accuracy_is_the_headline_of_classes_of_about_one_size(counts: list[int]) -> None:
    test = scores(np.arange(72) % 2, np.zeros(72, int), np.array(counts))
    assert imbalance.warning(CLASSES, np.array(counts), 0.5) is None
    assert test.headline == ("accuracy", test.accuracy, test.accuracy_low, test.accuracy_high)
    assert test.headline.told(72).startswith("50.00% of 72 held-out images right (95% interval ")


def test_a_record_of_an_earlier_version_has_accuracy_as_its_headline() -> None:
    test = scores(np.arange(72) % 2, np.zeros(72, int), COUNTS)
    told = test.model_dump()
    for name in ("balanced_accuracy_low", "balanced_accuracy_high", "class_ratio"):
        del told[name]
    older = TestScores.model_validate(told)
    assert older.headline.name == "accuracy"
    assert "class_ratio" not in older.model_dump(mode="json")
