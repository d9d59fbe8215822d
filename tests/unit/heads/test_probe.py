from __future__ import annotations

import numpy as np
import pytest

from headstart.heads import members, mlp, ridge, softmax
from headstart.heads.contract import Kind, Training
from headstart.heads.members import Member
from headstart.heads.probe import probe
from headstart.onnx.backbone_folder import LevelRecord
from headstart.onnx.head_folder import HeadRecipe, HeadRecord, MemberRecord, TrainingRecord
from tests.support import reports
from tests.support.heads import clusters, source_of

KNOWN = [
    LevelRecord(name="one", start=0, width=4, pooling="map"),
    LevelRecord(name="last", start=4, width=8, pooling="none"),
]


def member(kind: Kind, *levels: str, weight: float = 1.0) -> MemberRecord:
    return MemberRecord(kind=kind.NAME, levels=levels, strength=0.1, temperature=0.5, weight=weight)


def record(recipe: HeadRecipe, training: TrainingRecord) -> HeadRecord:
    classes = {"classes": ["a", "b", "c", "d"]}
    return reports.HEAD.model_copy(update={**classes, "recipe": recipe, "linear": None, "training": training})


@pytest.mark.parametrize("kind", [softmax, ridge, mlp], ids=lambda kind: kind.NAME)
def test_a_recipe_is_fitted_again_with_all_that_the_head_was_fitted_with(kind: Kind) -> None:
    features, labels = clusters()
    recipe = HeadRecipe(members=[member(kind, "last")], temperature=1.5)
    training = TrainingRecord(
        class_weights=[1.0, 2.0, 3.0, 4.0], label_smoothing=0.1, dropout=0.2, seed=3, shift=[0.0, 1.0, 2.0, 3.0]
    )
    head, columns = probe(record(recipe, training), recipe, source_of(features, labels), KNOWN, 1000)
    assert columns.tolist() == list(range(4, 12))
    weighted = source_of(features[:, 4:], labels, class_weights=np.array([1.0, 2, 3, 4]))
    part = Member(kind.NAME, ("last",), np.arange(8), 0.1, 0.5, 1.0)
    expected = members.fit([part], weighted, 4, Training(0.1, 0.2, 3), memory_mb=1000)
    found = head.scores(features[:, 4:])
    assert np.allclose(found, expected.scores(features[:, 4:]) / 1.5 + np.arange(4), atol=1e-5)


def test_a_blend_is_fitted_again_on_the_levels_of_its_members() -> None:
    features, labels = clusters()
    parts = [member(softmax, "one", weight=0.25), member(ridge, "one", "last", weight=0.75)]
    recipe = HeadRecipe(members=parts, temperature=2.0)
    plain = TrainingRecord(class_weights=None, label_smoothing=0.0, dropout=0.0, seed=0, shift=[0.0] * 4)
    source = source_of(features, labels)
    head, columns = probe(record(recipe, plain), recipe, source, KNOWN, 1000)
    assert columns.tolist() == list(range(12))
    one, other = (
        probe(record(recipe, plain), HeadRecipe(members=[part], temperature=1.0), source, KNOWN, 1000) for part in parts
    )
    assert one[1].tolist() == [0, 1, 2, 3]
    expected = 0.25 * one[0].scores(features[:, :4]) + 0.75 * other[0].scores(features)
    assert np.allclose(head.scores(features), expected / 0.5 / 2.0)
