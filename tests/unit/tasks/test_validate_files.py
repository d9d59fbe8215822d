"""What `validate` makes of odd files: no images, formats that are not read, small classes, deep colours, wide ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.base import validation
from headstart.base.errors import DataError
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout
from tests.support.images import deep_png, encoded, photograph
from tests.support.validation import Folders, failed, put, quarantine, run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


NO_IMAGES = (
    ".DS_Store",
    "ants/.DS_Store",
    "ants/Thumbs.db",
    "ants/desktop.ini",
    "ants/.ipynb_checkpoints/000-checkpoint.png",
    "__MACOSX/ants/000.png",
    "ants/@eaDir/000.png",
    "README.md",
    "LICENSE",
    "ants/labels.xml",
    "list.csv",
)


def test_documents_and_what_systems_leave_behind_are_no_broken_images(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(ants=3, bees=3)
    put(root, *NO_IMAGES)
    run(root, layout, max_quarantined_fraction=0.0)
    summary = ValidationSummary.of(layout)
    assert (summary.n_images, summary.n_quarantined, summary.n_no_images) == (6, 0, len(NO_IMAGES))
    assert summary.n_classes == 2
    assert set(quarantine(layout)) == set(NO_IMAGES)
    assert validation.quarantined(layout) == []
    told = capsys.readouterr()
    assert f"{len(NO_IMAGES)} further files are no images" in told.out
    assert "set aside" not in told.err


def test_an_image_with_the_name_of_a_document_is_an_image(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, notice=3)
    (root / "ants" / "license.png").write_bytes(encoded(photograph(60)))
    assert run(root, layout).filter(path="ants/license.png").height == 1
    assert ValidationSummary.of(layout).images_per_class == {"ants": 4, "notice": 3}


def test_folders_of_systems_beside_train_are_not_classes(class_folders: Folders, layout: Layout) -> None:
    root = class_folders("data/train", ants=3, bees=3).parent
    put(root, "__MACOSX/train/ants/000.png", ".ipynb_checkpoints/a.png")
    run(root, layout, max_quarantined_fraction=0.0)
    assert ValidationSummary.of(layout).form == "pre-split class folders (train)"


def test_formats_that_are_not_read_are_named(class_folders: Folders, layout: Layout, tmp_path: Path) -> None:
    root = class_folders(ants=3, bees=3)
    put(root, "ants/IMG_1.HEIC")
    (root / "bees" / "scan.png").write_bytes(bytes(128) + b"DICM")
    run(root, layout)
    assert quarantine(layout) == {
        "ants/IMG_1.HEIC": "HEIC, which is not read; convert it to PNG or JPEG",
        "bees/scan.png": "DICOM, which is not read; convert it to PNG or JPEG",
    }
    put(tmp_path / "phone", "ants/IMG_1.HEIC", "ants/.DS_Store", "bees/IMG_2.HEIC")
    with pytest.raises(DataError) as error:
        run(tmp_path / "phone", layout)
    assert "holds no image in a class folder (3 other files). ants/IMG_1.HEIC: HEIC, which is not read;" in str(
        error.value
    )
    assert len(failed(layout)) == 3


def test_a_failed_run_lists_all_that_it_set_aside_beside_what_was_there(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    run(root, layout)
    before = {path: path.read_bytes() for path in layout.validation.iterdir()}
    bad = [f"ants/bad{number}.jpg" for number in range(5)]
    put(root, *bad, "bees/.DS_Store")
    with pytest.raises(DataError, match=r"All 6 files that were set aside are in artifacts/failed/quarantine\.csv\.$"):
        run(root, layout, max_quarantined_fraction=0.05)
    assert failed(layout) == dict.fromkeys(bad, "not an image of a known format") | {
        "bees/.DS_Store": "hidden: '.DS_Store'"
    }
    assert {path: path.read_bytes() for path in layout.validation.iterdir()} == before
    run(root, layout)
    assert not (layout.artifacts / "failed/quarantine.csv").exists()


def test_small_classes_are_dropped_by_name_on_request(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(ants=3, bees=4, midges=2, wasps=1)
    manifest = run(root, layout, max_quarantined_fraction=0.0, min_images=3)
    assert sorted(set(manifest["label"])) == ["ants", "bees"]
    assert ValidationSummary.of(layout).dropped_classes == {"midges": 2, "wasps": 1}
    assert ValidationSummary.of(layout).n_quarantined == 0
    assert "2 classes with fewer than 3 images dropped (midges: 2, wasps: 1)" in capsys.readouterr().err
    assert sorted(quarantine(layout).values()) == [
        "its class is dropped: usable images 1, expected 3",
        *["its class is dropped: usable images 2, expected 3"] * 2,
    ]
    with pytest.raises(DataError, match=r"has a single usable image \(wasps\).* set validate\.min_images to 3"):
        run(root, layout)
    with pytest.raises(DataError, match=r"holds usable images of 1 class \(bees\)"):
        run(root, layout, min_images=4)


@pytest.mark.parametrize("bits", [12, 16])
def test_the_bits_that_the_data_use_are_found_over_all_images(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str], bits: int
) -> None:
    root = class_folders(ants=3, bees=3)
    run(root, layout)
    assert ValidationSummary.of(layout).bits is None
    assert "16 bits" not in capsys.readouterr().out
    for number, highest in enumerate((900, 2**bits - 1)):
        grey = np.linspace(0, highest, 400).astype(np.uint16).reshape(20, 20)
        (root / "ants" / f"grey{number}.png").write_bytes(encoded(Image.fromarray(grey)))
    assert run(root, layout).height == 8
    assert ValidationSummary.of(layout).bits == bits
    assert f"the lowest {bits} hold values: {2**bits - 1} is white" in capsys.readouterr().out


def test_bits_that_are_given_hold_and_larger_values_are_set_aside(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    for highest in (900, 5000):
        grey = np.linspace(0, highest, 400).astype(np.uint16).reshape(20, 20)
        (root / "ants" / f"{highest}.png").write_bytes(encoded(Image.fromarray(grey)))
    assert run(root, layout, bits=12).height == 7
    assert ValidationSummary.of(layout).bits == 12
    assert quarantine(layout) == {"ants/5000.png": "a value of 5000, where at most 4095 (12 bits) is expected"}


def test_a_form_that_is_read_with_all_bits_alone_is_set_aside_where_fewer_are_used(
    class_folders: Folders, layout: Layout
) -> None:
    root = class_folders(ants=3, bees=3)
    levels = np.linspace(0, 4095, 800).astype(np.uint16).reshape(20, 20, 2)  # grey and transparency
    (root / "ants" / "odd.png").write_bytes(deep_png(levels))
    assert run(root, layout).height == 6
    assert quarantine(layout)["ants/odd.png"].startswith("16 bits a channel in the form LA;16B")


def test_how_much_of_a_typical_image_is_in_its_centre_is_told(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)  # 60 x 40
    run(root, layout)
    assert ValidationSummary.of(layout).centre_share == 0.6667
