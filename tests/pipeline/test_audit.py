"""The audit within the pipeline: a copy across splits, what `audit.on_leak` does about it, and what the report says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from headstart import reviewed
from tests.support.images import encoded
from tests.support.projects import Project

pytestmark = pytest.mark.slow  # runs of a whole pipeline; its parts have quicker tests


def splits(project: Project) -> dict[str, str]:
    table = pl.read_parquet(project.root / "artifacts/splits.parquet")
    return dict(table.select("path", "split").iter_rows())


def leaks(project: Project) -> pl.DataFrame:
    return pl.read_parquet(project.root / "artifacts/audit/findings.parquet").filter(kind="leak")


def with_a_leak(project: Project) -> str:
    """Give the project a lighter, compressed copy of a test image that falls into another split; return both paths."""
    path = next(path for path, split in sorted(splits(project).items()) if split == "test")
    pixels = np.asarray(Image.open(io.BytesIO((project.root / "photos" / path).read_bytes())).convert("RGB"))
    for quality in range(60, 95):
        copy = Path(path).with_name(f"copy-{quality}.jpg")
        file = project.root / "photos" / copy
        file.write_bytes(encoded((pixels * 0.97).astype(np.uint8), "JPEG", quality=quality))
        project.must("dvc", "repro", "split")
        if splits(project)[copy.as_posix()] != "test":
            return copy.as_posix()
        file.unlink()
    raise AssertionError("no copy fell into another split")


def test_a_copy_across_splits_is_reported_refused_or_moved(project: Project) -> None:
    copy = with_a_leak(project)
    said = project.must("dvc", "repro", "report")
    assert "audit: warning: 1 test image has a nearly identical one in train or val" in said
    found = leaks(project)
    assert found["path"].to_list() == [copy]
    assert splits(project)[str(found["other_path"][0])] == "test"
    assert "Nearly the same picture in two splits" in (project.root / "artifacts/report.html").read_text()

    project.must("python", "-m", "tasks", "set", "audit.on_leak=error")
    done = project.run("dvc", "repro", "audit")
    assert done.returncode
    assert "audit: 1 pictures are in more than one split, nearly the same" in done.stdout
    assert copy in (project.root / "artifacts/failed/leaks.csv").read_text()

    kept = reviewed.Decision(str(found["image_id"][0]), copy, "keep")
    reviewed.write(project.root / "reviewed.csv", [kept])
    project.must("dvc", "repro", "audit")
    assert leaks(project)["path"].to_list() == [copy]  # the accuracy is too good all the same
    reviewed.write(project.root / "reviewed.csv", [])

    project.must("python", "-m", "tasks", "set", "audit.on_leak=move")
    said = project.must("dvc", "repro", "audit")
    assert (
        "audit: warning: 2 images are put together in reviewed.csv, those that are nearly the same across splits"
        in said
    )
    assert not (project.root / "artifacts/failed/leaks.csv").exists()
    decisions = reviewed.read(project.root / "reviewed.csv")
    assert {each.path for each in decisions.values()} == {copy, str(found["other_path"][0])}
    said = project.must("dvc", "repro", "audit")
    assert "by reviewed.csv 0 images are dropped, 2 changed and 0 kept" in said
    assert not len(leaks(project))
    assert len({splits(project)[each.path] for each in decisions.values()}) == 1
    proposed = pl.read_csv(project.root / "artifacts/audit/groups.csv")["path"].to_list()
    assert proposed  # what was decided of one group hides no other
    assert not {each.path for each in decisions.values()} & set(proposed)


def test_without_the_audit_nothing_is_looked_at(project: Project) -> None:
    project.must("python", "-m", "tasks", "set", "audit.enabled=false")
    said = project.must("dvc", "repro", "report")
    assert "audit: off: audit.enabled is false" in said
    assert "Can the data be trusted?" not in (project.root / "artifacts/report.html").read_text()
