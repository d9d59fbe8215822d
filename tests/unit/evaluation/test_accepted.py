from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.base.errors import CheckError
from headstart.evaluation import accepted
from headstart.layout import Layout


def test_the_newest_version_is_so_by_number_and_other_tags_do_not_count() -> None:
    tags = ["classifier@v1.9.0", "classifier@v1.10.0", "classifier@v1.2.0", "v9.0.0", "other@v9.0.0", "classifier@v9"]
    assert accepted.newest(tags) == "v1.10.0"
    assert accepted.newest(["v1.0.0"]) is None
    assert accepted.tag_of("v1.10.0") == "classifier@v1.10.0"


def pair(n: int, n_lost: int, n_won: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what the new and the accepted model have right, of n images."""
    new, old = np.ones((2, n), bool)
    new[:n_lost] = old[n_lost : n_lost + n_won] = False
    return new, old


@pytest.mark.parametrize(
    ("n_lost", "n_won", "is_worse", "said"),
    [
        (0, 0, False, "does not differ significantly from the accepted v1.0.0"),
        (4, 0, False, "does not differ significantly"),
        (5, 0, True, "significantly worse"),
        (9, 8, False, "does not differ significantly"),
        (12, 2, True, "significantly worse than the accepted v1.0.0"),
        (0, 9, False, "significantly better than the accepted v1.0.0"),
    ],
)
def test_a_model_is_worse_where_that_is_more_than_chance(n_lost: int, n_won: int, is_worse: bool, said: str) -> None:
    found = accepted.compare("v1.0.0", *pair(200, n_lost, n_won), np.arange(200), 200, 0)
    assert found.is_worse is is_worse
    assert said in found.why
    assert (found.only_accepted_right, found.only_new_right) == (n_lost, n_won)
    assert found.accepted.accuracy == pytest.approx(1 - n_won / 200)


def test_images_of_one_group_are_one_piece_of_evidence() -> None:
    new, old = pair(200, 12, 0)
    groups = np.arange(200)
    groups[:12] = 0  # all twelve of one scene
    assert accepted.compare("v1.0.0", new, old, np.arange(200), 200, 0).is_worse
    assert not accepted.compare("v1.0.0", new, old, groups, 200, 0).is_worse


def test_chance_alone_seldom_rejects() -> None:
    random = np.random.default_rng(0)
    rejected = [
        accepted.compare("v1.0.0", *(random.random((2, 150)) < 0.9), np.arange(150), 100, 0).is_worse
        for _ in range(300)
    ]
    assert np.mean(rejected) < 0.07


def test_a_version_that_git_does_not_know_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match=r"accepted v1\.0\.0 cannot be fetched: .*classifier@v1\.0\.0"):
        accepted.fetch("v1.0.0", Layout(tmp_path), tmp_path / "model.onnx")
