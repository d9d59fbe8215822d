"""Images without labels beside a finished project: they reach nothing that is fitted or reported."""

from __future__ import annotations

import re
import shutil

from tests.support.projects import Project


def test_images_without_labels_change_nothing_that_is_fitted_or_reported(project: Project) -> None:
    """The bait: the other class's pictures in each class's folder would bend every fit that they reached."""
    bait = project.root / "bait"
    for label, other in (("ants", "bees"), ("bees", "ants")):
        shutil.copytree(project.root / "photos" / label, bait / other)
    for file in bait.rglob("*.jpg"):
        file.write_bytes(file.read_bytes() + b"0")  # other bytes, so that they are no copies
    before = project.artefacts()
    project.must("python", "-m", "tasks", "set", "data.unlabelled=bait")
    said = project.must("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)'", said) == ["unlabelled"]
    assert "24 images without labels" in said
    for stage in ("train_head", "evaluate"):
        project.must("dvc", "repro", "--force", "--single-item", stage)
    after = project.artefacts()
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"dvc.lock", *(f"artifacts/unlabelled/{name}" for name in ("unlabelled.json", "sums.sha256"))}
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"unlabelled"}
    (bait / "new.jpg").write_bytes((bait / "ants" / "000.jpg").read_bytes() + b"1")
    assert "1 images computed, 24 reused" in project.must("dvc", "repro")
