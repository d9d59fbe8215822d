"""The chosen head, fitted on train alone: stages compare networks with it on validation.

The head that ships was fitted on train and val, so validation cannot judge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from headstart.heads import members
from headstart.heads.contract import Fitted, Training
from headstart.heads.design import Source
from headstart.heads.level_sets import columns_of
from headstart.heads.members import Member
from headstart.onnx.backbone_folder import LevelRecord
from headstart.onnx.head_folder import HeadRecipe, HeadRecord


def probe(
    record: HeadRecord, recipe: HeadRecipe, source: Source, known: Sequence[LevelRecord], memory_mb: int
) -> tuple[Fitted, np.ndarray]:
    """Return a head of a recipe of the record, fitted on `source` alone, and the columns that it reads, int [D].

    `known`: the levels that a row of the source has.
    """
    training, n_classes = record.training, len(record.classes)
    weights = None if training.class_weights is None else np.array(training.class_weights)
    parts = [
        Member(each.kind, each.levels, columns_of(known, each.levels), each.strength, each.temperature, each.weight)
        for each in recipe.members
    ]
    head = members.fit(
        parts,
        replace(source, class_weights=weights),
        n_classes,
        Training(training.label_smoothing, training.dropout, training.seed),
        memory_mb=memory_mb,
    )
    return head.calibrated(recipe.temperature, np.array(training.shift)), members.columns_of(parts)
