"""What is said of near-identical images, and which of two labels is doubted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headstart.auditing import folder, series, told
from headstart.auditing.duplicates import Pairs
from headstart.auditing.folder import AuditRecord
from headstart.auditing.label_errors import Judged
from headstart.auditing.neighbours import Neighbours
from tests.support.reviews import audited


def seen(splits: list[str], labels: list[int], own: list[float], groups: list[str] | None = None) -> Any:
    """Return images of two classes; `own`: the probability of the given label, NaN for an image nobody judged."""
    n_images = len(splits)
    known = ~np.isnan(own)
    other = np.where(known, 1 - np.array(own), np.nan)
    judged = Judged(np.array(own), other, np.where(known, 1 - np.array(labels), -1))
    ids, paths = [f"{number}" * 64 for number in range(n_images)], [f"{number}.png" for number in range(n_images)]
    given = np.array(groups or ids)
    images = SimpleNamespace(image_ids=ids, paths=paths, groups=given)
    return SimpleNamespace(
        images=images,
        splits=np.array(splits),
        labels=np.array(labels),
        classes=["ants", "bees"],
        judged=judged,
        rows=np.eye(n_images, dtype=np.float32),
        has_groups=False,
        __len__=lambda self: n_images,
    )


PAIR = Pairs(np.array([[0, 1]]), np.array([0.99]))


@pytest.mark.parametrize(
    ("own", "suspect", "says"),
    [((0.1, 0.9), 0, "bees"), ((0.9, 0.1), 1, "ants"), ((0.9, 0.9), 1, ""), ((0.1, 0.1), 1, "ants")],
)
def test_of_two_labels_of_a_picture_the_one_that_the_head_doubts_is_named(
    own: tuple[float, float], suspect: int, says: str
) -> None:
    (found,) = told.copies(seen(["train", "train"], [0, 1], list(own)), PAIR, [np.array([0, 1])])
    assert found.kind == "conflict"
    assert (found.path, found.other_path) == (f"{suspect}.png", f"{1 - suspect}.png")
    assert (found.label, found.suggested) == (("ants", "bees") if suspect == 0 else ("bees", "ants"))
    doubt = "; a head that was not fitted on it doubts its own label, and says "
    assert (doubt + says in found.reason) if says else (doubt not in found.reason)


def test_an_image_of_test_that_nobody_judged_is_not_doubted() -> None:
    (found,) = told.copies(seen(["train", "test"], [0, 1], [0.9, np.nan]), PAIR, [np.array([0, 1])])
    assert (found.kind, found.path, found.suggested) == ("leak", "0.png", "bees")
    assert "doubts" not in found.reason


def test_what_is_decided_of_copies_is_no_longer_counted(tmp_path: Any) -> None:
    record = folder.read(audited(tmp_path / "project").audit)
    assert record is not None
    assert record.told.startswith("2 near-identical groups, ")
    decided: AuditRecord = record.model_copy(update={"n_clusters_decided": 1})
    assert decided.told.startswith("1 near-identical group, ")
    assert "(1 near-identical more are decided)" in decided.told
    assert decided.metrics["near_identical_clusters"] == 2


def test_a_series_is_said_to_follow_from_the_clusters_that_are_new(monkeypatch: pytest.MonkeyPatch) -> None:
    class Images(SimpleNamespace):
        def __len__(self) -> int:
            return 6

    two = Images(**vars(seen(["train"] * 6, [0] * 6, [0.9] * 6, ["a", "a", "b", "b", "4" * 64, "5" * 64])))
    monkeypatch.setattr(series, "_bursts", lambda *_: np.zeros((0, 2), np.int64))
    clusters = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    near = Neighbours(np.zeros((6, 1), np.int64), np.zeros((6, 1), np.float32), True)
    record, table = series.proposed(two, near, clusters, seed=0)
    assert record is not None
    assert (record.n_groups, record.n_images, record.basis) == (1, 2, ["1 cluster of near-identical images"])
    assert table["path"].to_list() == ["4.png", "5.png"]
