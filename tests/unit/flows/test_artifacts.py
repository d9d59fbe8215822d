from __future__ import annotations

from pathlib import Path

from flows import headline
from flows.artifacts import audit_sheet, score_rows, validation_sheet
from headstart.auditing import folder as auditing
from headstart.base import dataset
from headstart.base.decisions import HeldOut
from headstart.base.validation import ValidationSummary
from tests.support.reports import make
from tests.support.reviews import audited


def test_a_score_is_beside_that_of_before() -> None:
    changes = {"test.accuracy": {"old": 0.9, "new": 0.95, "diff": 0.04999999999999993}}
    assert score_rows({"accuracy": 0.95, "n_images": 20}, changes, "classifier@v1.0.0") == [
        {"score": "accuracy", "value": 0.95, "classifier@v1.0.0": 0.9, "change": 0.05},
        {"score": "n_images", "value": 20, "classifier@v1.0.0": "", "change": ""},
    ]


def test_what_was_found_and_what_was_set_aside() -> None:
    summary = ValidationSummary(
        form="class folders",
        n_files=6,
        n_images=5,
        n_quarantined=1,
        n_copies=0,
        n_dropped=0,
        n_no_images=0,
        dropped_classes={},
        bits=None,
        centre_share=1.0,
        n_classes=2,
        n_groups=5,
        images_per_class={"ants": 3, "bees": 2},
        formats={"JPEG": 5},
        data_sha256="ab" * 32,
    )
    sheet = validation_sheet(summary, [("ants/x.jpg", "not an image")])
    assert "5 images of 2 classes, read as class folders" in sheet
    assert "| ants | 3 |" in sheet
    assert "1 file was set aside." in sheet
    assert "| ants/x.jpg | not an image |" in sheet
    assert "| file |" not in validation_sheet(summary, [])
    many = summary.model_copy(update={"images_per_class": {f"class {number}": 1 for number in range(1000)}})
    assert len(validation_sheet(many, []).splitlines()) < 60


def test_the_audit_is_shown_with_its_warnings_counts_and_first_findings(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    record, rows = auditing.read(layout.audit), auditing.findings(layout.audit).to_dicts()
    assert record is not None
    sheet = audit_sheet(record, rows)
    assert sheet.startswith("**1 test image has a nearly identical one in train or val, so the accuracy is too good.")
    assert "2 near-identical groups, 2 doubtful labels, 1 odd image, 0 series" in sheet
    assert sheet.count("\n| photos/") == len(rows) == 6
    many = audit_sheet(record, rows * 100)
    assert many.endswith("The first 50 of 600.")
    hostile = audit_sheet(record, [{**rows[0], "path": "a|b<i>.png"}])
    assert "| a\\|b&lt;i&gt;.png |" in hostile
    assert audit_sheet(None, []) == "audit.enabled is false: nothing was looked at."


def test_what_makes_the_result_doubtful_stands_below_it(tmp_path: Path) -> None:
    layout = audited(tmp_path / "project")
    summary = dataset.read_summary(layout)
    changed = HeldOut(n_dropped=2, n_relabelled=0, n_moved_in=0, n_moved_out=0, n_unknown=0)
    summary.model_copy(update={"decided": changed}).write(layout.split_summary)
    decided, leaked = headline.warnings(layout)
    assert "2 dropped" in decided
    assert leaked.startswith("1 test image has")
    sheet = headline.sheet(make().good.test, {}, [decided, leaked])
    assert "**Held-out images were changed by decisions in reviewed.csv" in sheet
    assert "**1 test image has a nearly identical one" in sheet
