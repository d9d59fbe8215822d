from __future__ import annotations

from flows.artifacts import score_rows, validation_sheet
from headstart.base.validation import ValidationSummary


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
