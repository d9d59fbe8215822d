"""A tuned network is kept while `recipe.VERSION` is the same, so other results need another version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.tuning import recipe as settings
from headstart.tuning.loop import tune
from tests.support.training import images, network, no_bar, pixel_feed, recipe, views

TRAIN, VAL = images(20), images(9, first=100)
WITH_ADAMW = {"optimizer": "adamw", "lr": 1e-3, "views": 0, "label_smoothing": 0.1, "mixup": 0.2, "ema_decay": 0.9}
WITH_SGD = {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-2, "train_norms": True, "cutmix": 0.3, "accumulate": 2}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_what_finetune_computes_is_what_this_version_has_computed_before(name: str, tmp_path: Path) -> None:
    """Where this fails on purpose: increment recipe.VERSION, and write the new results here."""
    options = {"adamw": WITH_ADAMW, "sgd": WITH_SGD}[name]
    net = network(dropout=0.2, train_norms=name == "sgd")
    seen = views(net.preprocessing.input_px, policy="rand", erasing=0.2)
    given = recipe(tmp_path, net, unfreeze={1: 1, 2: 2}, epochs=3, **options)
    tuned = tune(net, TRAIN, VAL, given, pixel_feed(net, seen), no_bar)
    found = [[epoch.val_log_loss, epoch.learning_rate, epoch.lowest_learning_rate] for epoch in tuned.history]
    found.append([tuned.temperature, float(np.abs(tuned.val_logits).mean()), float(tuned.best.epoch)])
    found.append([epoch.train_loss or 0.0 for epoch in tuned.history[1:]])
    assert settings.VERSION == "3"
    for line, expected in zip(found, FIGURES[name], strict=True):
        assert line == pytest.approx(expected, abs=5e-3, rel=1e-2)


FIGURES: dict[str, list[list[float]]] = {
    "adamw": [
        [1.174, 0.0, 0.0],
        [1.139, 0.0009045, 0.0007236],
        [1.089, 0.0003455, 0.0002211],
        [1.071, 0.0, 0.0],
        [1.0, 0.3164, 3.0],
        [1.282, 1.206, 1.13],
    ],
    "sgd": [
        [1.174, 0.0, 0.0],
        [1.153, 0.009045, 0.007236],
        [1.101, 0.003455, 0.002211],
        [1.126, 0.0, 0.0],
        [1.0, 0.3661, 2.0],
        [1.696, 1.88, 2.236],
    ],
}
