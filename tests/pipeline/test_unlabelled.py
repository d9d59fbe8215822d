"""Images without labels beside a finished project: they reach no model that ships, and no figure of it."""

from __future__ import annotations

import re
import shutil

from tests.support.projects import Project


def test_images_without_labels_change_no_model_that_ships_and_no_figure_of_it(project: Project) -> None:
    """The bait: the other class's pictures in each class's folder would bend every fit that they reached."""
    bait = project.root / "bait"
    for label, other in (("ants", "bees"), ("bees", "ants")):
        shutil.copytree(project.root / "photos" / label, bait / other)
    for file in bait.rglob("*.jpg"):
        file.write_bytes(file.read_bytes() + b"0")  # other bytes, so that they are no copies
    before = project.artefacts()
    project.must("python", "-m", "tasks", "set", "data.unlabelled=bait")
    said = project.must("dvc", "repro")
    ran = re.findall(r"Running stage '(\w+)'", said)
    assert ran[:2] == ["unlabelled", "adapt"]
    assert set(ran[2:]) <= {"evaluate", "quantize", "report", "export"}
    assert "24 images without labels" in said
    for stage in ("train_head", "evaluate"):
        project.must("dvc", "repro", "--force", "--single-item", stage)
    after = project.artefacts()
    changed = {name for name in before if before[name] != after.get(name)}
    told = ("unlabelled/unlabelled.json", "unlabelled/sums.sha256", "adapt/adapted.json", "adapt/sums.sha256")
    assert changed == {"dvc.lock", "artifacts/report.html", *(f"artifacts/{name}" for name in told)}
    assert {name.split("/")[1] for name in after.keys() - before.keys()} == {"unlabelled"}
    (bait / "new.jpg").write_bytes((bait / "ants" / "000.jpg").read_bytes() + b"1")
    assert "1 images computed, 24 reused" in project.must("dvc", "repro")
