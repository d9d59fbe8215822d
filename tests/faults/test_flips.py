"""A stage that is run by hand refuses inputs of which a bit has flipped, or gives what it gave before."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks import __main__ as launcher
from tests.support.projects import Project

STAGES = ("split", "transform", "embed", "train_head", "audit", "finetune", "find_accepted")
STAGES = (*STAGES, "evaluate", "quantize", "report", "export", "publish")


def inputs_of(root: Path, stage: str) -> list[Path]:
    """Return the files that other stages made and this one depends on."""
    deps = YAML(typ="safe").load(root / "dvc.yaml")["stages"][stage]["deps"]
    names = [root / dep for dep in deps if str(dep).startswith("artifacts/")]
    files = [file for name in names for file in (name.rglob("*") if name.is_dir() else [name])]
    return sorted(file for file in files if file.is_file())


def outcome(project: Project, stage: str, file: Path, chance: random.Random, before: dict[str, str]) -> str:
    """Flip a bit, run the stage, and put the bit back; return refused, the same, or other bytes."""
    whole = file.read_bytes()
    bit = chance.randrange(8 * len(whole))
    file.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
    try:
        status = launcher.main([stage])
    finally:
        file.write_bytes(whole)
    after = project.artefacts()
    made = {name: digest for name, digest in after.items() if before.get(name) != digest}
    if made:  # put the outputs back
        project.must("dvc", "checkout", "--force")
    if status:
        return "refused" if not made else "refused, after it had written"
    return "the same" if not made else "other bytes"


@pytest.mark.slow
@pytest.mark.parametrize("n_flips", [18, 400])
def test_flipped_bits_in_the_inputs_of_a_stage_are_refused_or_change_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, n_flips: int
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("HEADSTART_CACHE", str(project.cache))
    before, chance, found = project.artefacts(), random.Random(7), Counter[str]()
    for number in range(n_flips):
        stage = STAGES[number % len(STAGES)]
        file = chance.choice(inputs_of(project.root, stage))
        what = outcome(project, stage, file, chance, before)
        found[what] += 1
        assert what in ("refused", "the same"), (what, stage, file)
    print(dict(found))
    assert found["refused"] > n_flips / 2
