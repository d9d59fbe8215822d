from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax

from headstart.base import tables
from headstart.base.dataset import Dataset, Images
from headstart.evaluation.candidates import decide
from headstart.evaluation.metrics import before_calibration
from headstart.evaluation.predictions import Answers, predictions_table
from headstart.handover.conformance import spread_rows

CLASSES = ["ants", "bees", "wasps"]


def images(labels: list[int]) -> Images:
    ids = [f"{number:064x}" for number in range(len(labels))]
    return Images(ids, [f"{number}.jpg" for number in range(len(labels))], np.array(labels), np.array(ids))


def test_a_prediction_is_the_most_probable_class() -> None:
    test = images([0, 1, 0])
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.7, 0.1]], np.float32)
    answers = Answers(probabilities, np.zeros(3, np.float32))
    found = tables.check(predictions_table(test, answers, CLASSES), tables.PREDICTIONS)
    assert found["predicted"].to_list() == ["ants", "wasps", "bees"]
    assert found["correct"].to_list() == [True, False, False]
    assert np.allclose(found["probability"], [0.7, 0.6, 0.7])
    assert np.allclose(found["probabilities"].to_list(), probabilities)


@pytest.mark.parametrize("shift", [np.zeros(4), np.array([0.0, 1.0, 3.0, -1.0])], ids=["plain", "adjusted"])
def test_taking_the_temperature_back_gives_the_raw_scores_probabilities(shift: np.ndarray) -> None:
    scores = np.random.default_rng(0).normal(size=(20, 4)) * 3
    for temperature in (0.5, 1.0, 2.3):
        calibrated = softmax(scores / temperature + shift, axis=1).astype(np.float32)
        found = before_calibration(calibrated, temperature, shift)
        assert np.allclose(found, softmax(scores + shift, axis=1), atol=1e-5)


def test_images_of_a_class_are_counted_in_the_splits_that_are_asked_for() -> None:
    labels = {"train": [0] * 5 + [1] * 6 + [2], "val": [0] * 3 + [1], "test": [2] * 99}
    rows = [(split, CLASSES[label]) for split, some in labels.items() for label in some]
    ids = [f"{number:064x}" for number in range(len(rows))]
    table = pl.DataFrame({"image_id": ids, "path": ids, "group": ids}).with_columns(
        label=pl.Series([label for _, label in rows]), split=pl.Series([split for split, _ in rows])
    )
    data = Dataset(table)
    assert data.of("train", "val").counts(3).tolist() == [8, 7, 1]
    assert data.of("test").counts(3).tolist() == [0, 0, 99]


def test_conformance_images_run_from_unsure_to_sure() -> None:
    table = pl.DataFrame({"image_id": [f"{n:03d}" for n in range(50)], "probability": np.linspace(1, 0.4, 50)})
    found = spread_rows(table, 5)
    assert len(found) == 5
    assert found["probability"].is_sorted()
    assert (found["probability"][0], found["probability"][-1]) == (0.4, 1.0)
    assert len(spread_rows(table.head(3), 8)) == 3


def validation(advantage: float, n_images: int = 40) -> pl.DataFrame:
    random = np.random.default_rng(0)
    frozen = random.exponential(size=n_images) + 2
    return pl.DataFrame(
        {
            "image_id": [f"{number:064x}" for number in range(n_images)],
            "label": ["ants"] * n_images,
            "frozen_log_loss": frozen,
            "tuned_log_loss": frozen - advantage + random.normal(size=n_images) * 0.5,
            "frozen_correct": [True, False] * (n_images // 2),
            "tuned_correct": [True] * n_images,
        }
    )


def test_fine_tuning_ships_where_it_is_clearly_better_and_not_otherwise() -> None:
    groups = np.arange(40)
    clear, chance, worse = (decide(validation(advantage), groups, 10) for advantage in (0.8, 0.15, -0.8))
    assert [each.chosen for each in (clear, chance, worse)] == ["tuned", "frozen", "frozen"]
    assert clear.why.startswith("Fine-tuning ships: its log loss on validation is significantly lower, by 0.")
    assert "lower, but not significantly for the best of 10 epochs" in chance.why
    assert "does not ship: its log loss on validation is not lower" in worse.why
    assert clear.figures.frozen_accuracy == 0.5
    assert clear.figures.tuned_accuracy == 1.0


def test_the_same_advantage_is_less_clear_the_more_epochs_were_looked_at() -> None:
    table, groups = validation(0.3), np.arange(40)
    assert decide(table, groups, 1).chosen == "tuned"
    assert decide(table, groups, 1000).chosen == "frozen"
