"""A sample of `make torture`: a stage is disturbed, and one plain run ends in the bytes that were there before."""

from __future__ import annotations

import random

import pytest

from tests.support.faults import KINDS, STAGES, Torture, shim
from tests.support.projects import Project

pytestmark = pytest.mark.skipif(shim() is None, reason="no C compiler, or not Linux")

SAMPLE = (("kill at a write", "evaluate"), ("full disk", "split"))


def tried(project: Project, seed: int, trials: list[tuple[str, str]]) -> None:
    project.must("dvc", "repro")  # DVC's notes on files are of the project that this is a copy of
    torture = Torture(project, random.Random(seed))
    for kind, stage in trials:
        outcome = torture.trial(kind, stage)
        assert outcome.problem == "", outcome


def test_a_stage_that_is_killed_or_finds_the_disk_full_is_mended_by_one_plain_run(project: Project) -> None:
    tried(project, 5, [*SAMPLE])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fault_in_some_stages_is_mended_by_one_plain_run(project: Project, kind: str) -> None:
    tried(project, 6, [(kind, stage) for stage in STAGES[:: 2 if "kill" in kind else 4]])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_series(project: Project) -> None:
    project.must("dvc", "repro")
    series = []
    for _ in range(2):
        torture = Torture(project, random.Random(9))
        series.append([(each.kind, each.stage) for each in (torture.trial(stage="split") for _ in range(3))])
    assert series[0] == series[1]
