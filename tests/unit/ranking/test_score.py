"""Candidates are scored on the same images and folds, and in the memory that heads may take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart import params_file
from headstart.base.errors import ParamError
from headstart.heads.criteria import CRITERIA
from headstart.onnx.backbone_folder import LevelRecord
from headstart.params import TrainHead
from headstart.ranking import score
from headstart.ranking.score import Images
from tests.support.heads import clusters
from tests.support.images import ROOT


def settings(**changes: Any) -> TrainHead:
    return params_file.load(ROOT / "params.yaml").train_head.model_copy(update=changes)


def levels(width: int) -> list[LevelRecord]:
    names = {"stem": width // 2, "last": width - width // 2}
    starts = [0, width // 2]
    return [
        LevelRecord(name=name, start=start, width=each, pooling="map")
        for (name, each), start in zip(names.items(), starts, strict=True)
    ]


def scored(n: int, width: int, **changes: Any) -> tuple[score.Scored, np.ndarray, np.ndarray]:
    features, labels = clusters(n, 3, width)
    images = Images(labels, np.arange(n), 3)
    chosen = score.selection(features, images, levels(width), settings(**changes))
    return score.scored(chosen, images, settings(**changes).select_by), chosen.fold_of, chosen.out_of_fold


def test_folds_do_not_depend_on_the_features() -> None:
    _, narrow, _ = scored(120, 8)
    _, wide, _ = scored(120, 40)
    assert np.array_equal(narrow, wide)


@pytest.mark.parametrize("criterion", ["log_loss", "accuracy"])
def test_figures_are_those_of_held_out_images(criterion: str) -> None:
    found, _, out_of_fold = scored(150, 12, select_by=criterion)
    labels = np.arange(150) % 3
    assert found.accuracy == np.mean(out_of_fold.argmax(1) == labels)
    assert found.interval.low < found.accuracy < found.interval.high
    assert np.array_equal(found.values, CRITERIA[criterion](out_of_fold, labels))


def test_heads_read_the_last_level_or_all_or_what_is_asked_for() -> None:
    assert scored(90, 8)[0].levels in ("last", "stem + last", "stages + last")
    assert scored(90, 8, levels="last")[0].levels == "last"
    assert scored(90, 8, levels=("blocks.7",))[0].kind in (
        "ridge",
        "lda",
    )  # of one network: it means nothing for others


@pytest.mark.parametrize(("memory_mb", "n_classes"), [(700, 10), (700, 300), (2000, 1000)])
def test_as_many_images_are_looked_at_as_the_cross_validation_takes_whole(memory_mb: int, n_classes: int) -> None:
    from headstart.heads import plan
    from headstart.heads.design import Source

    values, width = settings(memory_mb=memory_mb), 4000
    n = score.most_images([100, width], n_classes, values)
    assert n > 100
    labels = np.arange(n) % n_classes
    rows = np.broadcast_to(np.float32(0), (n, width))
    plain = plan.Settings(
        score.KINDS,
        score._level_sets(levels(width), "auto"),
        values.strengths,
        2,
        0,
        memory_mb,
        is_nested=False,
        with_blend=False,
    )
    tried, division = plan.planned(Source(rows, None, labels, np.arange(n)), n_classes, plain)
    assert len(division.validated) == n
    assert len(tried.level_sets) == 2


def test_memory_that_does_not_hold_the_fewest_images_is_told() -> None:
    n, n_classes = 900, 10
    features = np.zeros((n, 20_000), np.float32)
    images = Images(np.arange(n) % n_classes, np.arange(n), n_classes)
    wanted = settings(memory_mb=700, folds=2, strengths=(1.0,), levels="last")
    with pytest.raises(ParamError, match=r"train_head.memory_mb is 700, which does not hold 900 images"):
        score.selection(features, images, levels(20_000), wanted)
