"""Finds the accepted model, a version of dvc.yaml's artifact that GTO tagged in git, and compares a new one with it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.base import paired
from headstart.base.errors import CheckError, count_and_name
from headstart.base.intervals import n_independent
from headstart.base.records import Digest, Record, Sealed
from headstart.evaluation import metrics
from headstart.evaluation.folder import AcceptedScores, Comparison
from headstart.onnx.model_folder import MODEL

if TYPE_CHECKING:
    from headstart.layout import Layout

NAME = "classifier"  # of the artifact in dvc.yaml
NEWEST = "newest"  # the value of export.gate that stands for the newest accepted version
_STAGE = "find_accepted"
_SIGNIFICANT = 0.05  # level of the tests
_TAG = re.compile(rf"{NAME}@(v(\d+)\.(\d+)\.(\d+))")


def tag_of(version: str) -> str:
    """Return the tag of a version such as v1.0.0."""
    return f"{NAME}@{version}"


def newest(tags: Iterable[str]) -> str | None:
    """Return the newest version among git's tags, None if no model has been accepted."""
    found = [match for tag in tags if (match := _TAG.fullmatch(tag))]
    return max(found, key=lambda match: tuple(map(int, match.groups()[1:])))[1] if found else None


class Accepted(Record):
    """An accepted model: its version, and the commit that the version's tag names."""

    version: str
    commit: str


class AcceptedFile(Sealed):
    """accepted.json."""

    accepted: Accepted | None  # None if no model was accepted, or export.gate is null
    candidate: Digest  # of the model that it was looked up for


def read(path: Path) -> Accepted | None:
    """Return the accepted model that `find_accepted` has found, or None."""
    return AcceptedFile.read(path, _STAGE).accepted


def look_up(gate: str | None, root: Path) -> Accepted | None:
    """Return the version that `export.gate` names, by git's tags; None if it is null or nothing was accepted yet.

    CheckError if it names a version that has no tag. A folder that git does not know has no accepted model.
    """
    if gate is None:
        return None
    version = newest(_git(root, "tag").split()) if gate == NEWEST else gate
    if version is None:
        return None
    commit = _git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag_of(version)}^{{commit}}").strip()
    if not commit:
        raise CheckError(
            f"export.gate is {version}, and git has no tag '{tag_of(version)}'. An accepted version was expected. Run"
            f" `git fetch --tags`, or set export.gate to another version, {NEWEST} or null in params.yaml."
        )
    return Accepted(version=version, commit=commit)


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints, or '' where there is no git or no repository."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def fetch(model: Accepted, layout: Layout, destination: Path) -> Path:
    """Write model.onnx of an accepted model to `destination`, from DVC's cache or remote, and return the path.

    It runs DVC's command, so that no stage imports DVC. CheckError with DVC's message if that fails.
    """
    path = (layout.model / MODEL).relative_to(layout.root).as_posix()
    command = [sys.executable, "-m", "dvc", "get", ".", path, "--rev", model.commit, "--out", str(destination)]
    done = subprocess.run(command, cwd=layout.root, capture_output=True, text=True)
    if done.returncode or not destination.is_file():
        said = done.stderr.strip().splitlines() or ["DVC gave no message"]
        raise CheckError(
            f"{path} of the accepted {model.version} cannot be fetched: {said[-1].removeprefix('ERROR: ')}. The files"
            f" of commit {model.commit[:12]} in DVC's cache or remote were expected. Configure a DVC remote that has"
            " them, or set export.gate to another version or null in params.yaml."
        )
    return destination


def not_comparable(version: str, classes: Sequence[str], accepted_classes: Sequence[str]) -> str | None:
    """Return in words why two models cannot be compared, or None if they know the same classes."""
    new, old = set(classes), set(accepted_classes)
    if new == old:
        return None
    told = [
        f"only {whose} knows {count_and_name(sorted(names))}"
        for whose, names in (("this model", new - old), ("the accepted one", old - new))
        if names
    ]
    return f"The model is not comparable with the accepted {version}, which has other classes: {'; '.join(told)}."


def compare(
    version: str, new_right: np.ndarray, accepted_right: np.ndarray, groups: np.ndarray, n_samples: int, seed: int
) -> Comparison:
    """Return the comparison of two models by whether they get each of the same images right, bool [N].

    The new one is worse if two one-sided tests at 5 % agree: McNemar's exact test, which is valid for few images, and
    the paired difference with groups [N] kept whole, which is valid for images that resemble each other.
    """
    only_accepted, only_new, p_value = metrics.mcnemar(accepted_right, new_right)
    is_worse, is_better = _beats(accepted_right, new_right, groups), _beats(new_right, accepted_right, groups)
    right = accepted_right.astype(np.int64)
    resampled = metrics.bootstrap(np.ones_like(right), right, groups, 2, n_samples, seed).accuracy
    accuracy = float(right.mean())
    interval = metrics.accuracy_interval(resampled, accuracy, n_independent(groups))
    beside = f"accuracy {new_right.mean():.2%} against {accuracy:.2%}"
    beside += f", {only_accepted} images lost and {only_new} won, p = {p_value:.3f}"
    if is_worse:
        why = f"The model is significantly worse than the accepted {version}: {beside}."
    elif is_better:
        why = f"The model is significantly better than the accepted {version}: {beside}."
    else:
        why = f"The model does not differ significantly from the accepted {version}: {beside}."
    return Comparison(
        accepted=AcceptedScores(
            version=version,
            accuracy=round(accuracy, 6),
            accuracy_low=round(interval.low, 6),
            accuracy_high=round(interval.high, 6),
        ),
        only_accepted_right=only_accepted,
        only_new_right=only_new,
        p_value=round(p_value, 6),
        is_worse=is_worse,
        why=why,
    )


def _beats(first_right: np.ndarray, second_right: np.ndarray, groups: np.ndarray) -> bool:
    """Return whether the first of two models is better by both tests."""
    only_first, only_second, p_value = metrics.mcnemar(first_right, second_right)
    lead = paired.advantage((~second_right).astype(float), (~first_right).astype(float), groups)
    return only_first > only_second and p_value / 2 < _SIGNIFICANT and lead.is_clear(1)
