from __future__ import annotations

import subprocess
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


def test_a_model_that_cannot_be_fetched_is_told(tmp_path: Path) -> None:
    gone = accepted.Accepted(version="v1.0.0", commit="0123456789abcdef")
    with pytest.raises(
        CheckError, match=r"accepted v1\.0\.0 cannot be fetched: .*\. The files of commit 0123456789ab in"
    ):
        accepted.fetch(gone, Layout(tmp_path), tmp_path / "model.onnx")


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_gate_names_a_version_by_git_tags(tmp_path: Path) -> None:
    assert accepted.look_up("newest", tmp_path) is None  # no repository
    git(tmp_path, "init", "--quiet")
    assert accepted.look_up("newest", tmp_path) is None
    commits = []
    for version in ("v1.9.0", "v1.10.0"):
        git(tmp_path, "commit", "--allow-empty", "--quiet", "-m", version)
        git(tmp_path, "tag", "-a", f"classifier@{version}", "-m", "accepted")
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    assert accepted.look_up("newest", tmp_path) == accepted.Accepted(version="v1.10.0", commit=commits[1])
    assert accepted.look_up("v1.9.0", tmp_path) == accepted.Accepted(version="v1.9.0", commit=commits[0])
    assert accepted.look_up(None, tmp_path) is None
    with pytest.raises(CheckError, match=r"git has no tag 'classifier@v3\.0\.0'"):
        accepted.look_up("v3.0.0", tmp_path)


def test_models_with_other_classes_are_not_comparable() -> None:
    assert accepted.not_comparable("v1.0.0", ["ants", "bees"], ["bees", "ants"]) is None
    why = accepted.not_comparable("v1.0.0", ["ants", "bees", "wasps"], ["ants", "bees"])
    assert why is not None
    assert why.endswith("the accepted v1.0.0, which has other classes: only this model knows wasps.")
