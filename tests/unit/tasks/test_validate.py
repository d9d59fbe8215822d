from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headstart import params_file
from headstart.base import dataset, tables, validation
from headstart.base.errors import CheckError, DataError
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout
from tasks import split as splitting
from tests.support.images import ROOT, encoded, photograph
from tests.support.validation import Folders, quarantine, run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


def test_class_folders_give_a_row_an_image(class_folders: Folders, layout: Layout) -> None:
    manifest = run(class_folders(ants=3, bees=2), layout)
    assert sorted(manifest["label"]) == ["ants"] * 3 + ["bees"] * 2
    assert manifest["group"].to_list() == manifest["image_id"].to_list()
    assert manifest["given_split"].null_count() == 5
    assert set(manifest.select("format", "width_px", "height_px").unique().row(0)) == {"PNG", 60, 40}


def test_images_in_subfolders_belong_to_the_class_at_the_top(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=2, bees=2)
    (root / "ants" / "2024" / "may").mkdir(parents=True)
    (root / "ants" / "2024" / "may" / "x.JPG").write_bytes(encoded(photograph(99), "JPEG"))
    assert "ants/2024/may/x.JPG" in run(root, layout).filter(label="ants")["path"].to_list()


def test_pre_split_folders_bring_their_splits(class_folders: Folders, layout: Layout) -> None:
    root = class_folders("data/train", ants=2, bees=2).parent
    for number, (split, label) in enumerate((s, c) for s in ("val", "test") for c in ("ants", "bees")):
        (root / split / label).mkdir(parents=True)
        (root / split / label / "a.png").write_bytes(encoded(photograph(100 + number)))
    manifest = run(root, layout)
    assert dict(manifest["given_split"].value_counts().iter_rows()) == {"train": 4, "val": 2, "test": 2}
    assert sorted(set(manifest["label"])) == ["ants", "bees"]
    assert ValidationSummary.of(layout).form == "pre-split class folders (train, val, test)"


def test_classes_called_val_and_test_are_classes_where_there_is_no_train(
    class_folders: Folders, layout: Layout
) -> None:
    assert sorted(set(run(class_folders(val=2, test=2), layout)["label"])) == ["test", "val"]


def test_a_validation_folder_of_another_name_is_not_taken_for_a_class(class_folders: Folders, layout: Layout) -> None:
    with pytest.raises(DataError, match=r"holds no image in a class folder .*<split>/<class>/<image> was expected"):
        run(class_folders(train=2, valid=2), layout)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_manifest_brings_labels_splits_and_groups(class_folders: Folders, layout: Layout, suffix: str) -> None:
    root = class_folders(x=6)
    table = pl.DataFrame(
        {
            "path": [f"x/{number:03d}.png" for number in range(6)],
            "label": ["ants", "bees"] * 3,
            "split": ["train"] * 4 + ["test"] * 2,
            "group": ["a", "a", "b", "b", "c", "c"],
            "remark": [None] * 6,
        }
    )
    path = root / f"list{suffix}"
    table.write_csv(path) if suffix == ".csv" else table.write_parquet(path)
    manifest = run(path, layout).sort("path")
    assert manifest["label"].to_list() == ["ants", "bees"] * 3
    assert manifest["group"].to_list() == ["a", "a", "b", "b", "c", "c"]
    assert manifest["given_split"].to_list() == ["train"] * 4 + ["test"] * 2


def test_further_columns_of_a_manifest_are_kept_as_slices(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(x=40)
    table = pl.DataFrame(
        {
            "path": [f"x/{number:03d}.png" for number in range(40)],
            "label": ["ants", "bees"] * 20,
            "camera": [1, 2, 2, None] * 10,
            "remark": [f"remark {number}" for number in range(40)],
            "thumbnail": [b"\xff"] * 40,
            "boxes": [[1, 2]] * 40,
        }
    )
    table.write_parquet(root / "list.parquet")
    manifest = run(root / "list.parquet", layout)
    found = validation.slices(layout).join(manifest, on="image_id").sort("path")
    assert found.select("path", "slice", "value").rows()[:3] == [
        ("x/000.png", "camera", "1"),
        ("x/001.png", "camera", "2"),
        ("x/002.png", "camera", "2"),
    ]
    assert len(found) == 30
    said = capsys.readouterr().out
    assert "results are told apart by camera" in said
    assert "remark has 40 values, more than 24, and makes no slices" in said


def test_levels_of_folders_are_kept_as_slices(class_folders: Folders, layout: Layout) -> None:
    root = class_folders("data/front", ants=3, bees=3).parent
    (root / "rear").mkdir()
    (root / "front" / "bees").rename(root / "rear" / "bees")
    with pytest.raises(DataError, match=r"Set data\.layout to 'class' for the former"):
        run(root, layout)
    manifest = run(root, layout, folders="camera/class")
    found = dict(validation.slices(layout).join(manifest, on="image_id").select("path", "value").iter_rows())
    assert {path: path.split("/")[0] for path in manifest["path"]} == found
    assert ValidationSummary.of(layout).form == "class folders, by the levels camera/class"


def test_numbers_as_labels_keep_their_zeros(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(x=4)
    (root / "list.csv").write_text("path,label\nx/000.png,01\nx/001.png,01\nx/002.png,1\nx/003.png,1\n")
    assert sorted(run(root / "list.csv", layout)["label"]) == ["01", "01", "1", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na,b\n", r"lacks 1 columns \(path\); it has file, label"),
        ("path,lable\na,b\n", r"lacks 1 columns \(label\).*Did you mean 'lable'\?"),
        ("", "cannot be read as csv"),
        ("path,label\n", "has no rows"),
        ("path,label\nx/000.png,\nx/001.png,b\n", "1 rows of .* have no label"),
        ("path,label\nx/000.png,a\nx/000.png,b\n", "names 1 path more than once"),
        ("path,label\nx/000.png,a\nx/nowhere.png,b\n", r"1 of 2 paths .* do not exist \(x/nowhere.png\)"),
        ("path,label,split\nx/000.png,a,train\nx/001.png,b,validation\n", r"1 unknown names \(validation\)"),
        ("path,label,split\nx/000.png,a,train\nx/001.png,b,\n", "1 of 2 rows .* have no split"),
        ("path,label,group\nx/000.png,a,g\nx/001.png,b,\n", "1 of 2 rows .* have no group"),
    ],
)
def test_a_bad_manifest_is_refused(class_folders: Folders, layout: Layout, text: str, message: str) -> None:
    root = class_folders(x=2)
    (root / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        run(root / "list.csv", layout)
    assert not layout.artifacts.exists()


def test_every_file_ends_in_exactly_one_of_manifest_and_quarantine(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=4, bees=4)
    (root / "README.txt").write_text("photographs")
    (root / "stray.png").write_bytes(encoded(photograph(50)))
    (root / "ants" / ".DS_Store").write_bytes(b"x")
    (root / "ants" / "notes.txt").write_text("x")
    (root / "ants" / "odd.xyz").write_text("x")
    (root / "ants" / "page.jpg").write_text("<html>not found</html>")
    (root / "bees" / "cut.jpg").write_bytes(encoded(photograph(51), "JPEG")[:-100])
    (root / "bees" / "empty.png").write_bytes(b"")
    manifest = run(root, layout)
    aside = quarantine(layout)
    everything = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    assert sorted([*manifest["path"], *aside]) == everything
    assert aside["stray.png"] == "not in a class folder"
    assert aside["README.txt"] == aside["ants/notes.txt"] == "no image: '.txt'"
    assert aside["ants/.DS_Store"] == "hidden: '.DS_Store'"
    assert aside["ants/odd.xyz"] == "not an image file: '.xyz'"
    assert aside["ants/page.jpg"] == "not an image of a known format"
    assert aside["bees/cut.jpg"].startswith("cannot be decoded")
    assert aside["bees/empty.png"] == "empty file"


def test_the_same_bytes_under_two_labels_are_all_set_aside(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    (root / "bees" / "copy.png").write_bytes((root / "ants" / "000.png").read_bytes())
    manifest = run(root, layout)
    assert manifest.height == 5
    reason = "the same bytes under 2 labels: ants, bees"
    assert quarantine(layout) == {"ants/000.png": reason, "bees/copy.png": reason}


def test_the_same_bytes_twice_under_one_label_count_once(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    (root / "ants" / "copy.png").write_bytes((root / "ants" / "001.png").read_bytes())
    assert run(root, layout).height == 6
    assert quarantine(layout) == {"ants/copy.png": "the same bytes as ants/001.png"}


def test_of_copies_in_train_and_test_the_held_out_one_stays_and_is_marked(
    class_folders: Folders, layout: Layout
) -> None:
    root = class_folders("data/train", ants=3, bees=3).parent
    (root / "test" / "ants").mkdir(parents=True)
    (root / "test" / "ants" / "z.png").write_bytes((root / "train" / "ants" / "000.png").read_bytes())
    (root / "test" / "ants" / "y.png").write_bytes(encoded(photograph(90)))
    (root / "test" / "ants" / "x.png").write_bytes(encoded(photograph(90)))
    manifest = run(root, layout)
    assert quarantine(layout) == {
        "test/ants/y.png": "the same bytes as test/ants/x.png",
        "train/ants/000.png": "the same bytes as test/ants/z.png",
    }
    assert manifest.filter("copy_in_train")["path"].to_list() == ["test/ants/z.png"]


def test_copies_under_one_label_are_harmless_and_do_not_count(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    """A public set of 3,264 scans with 7 % of copies was refused because of them."""
    root = class_folders(ants=3, bees=3)
    for number in range(4):
        (root / "ants" / f"copy{number}.png").write_bytes((root / "ants" / "001.png").read_bytes())
    assert run(root, layout, max_quarantined_fraction=0.0).height == 6
    summary = ValidationSummary.of(layout)
    assert (summary.n_files, summary.n_images, summary.n_copies, summary.n_quarantined) == (10, 6, 4, 0)
    assert validation.quarantined(layout) == []
    assert "4 files are copies of others under the same label" in capsys.readouterr().out
    (root / "bees" / "copy.png").write_bytes((root / "ants" / "001.png").read_bytes())
    with pytest.raises(DataError, match=r"6 of 11 files .* cannot be used"):
        run(root, layout, max_quarantined_fraction=0.05)


def test_too_many_unusable_files_stop_the_stage_and_leave_what_was_there(
    class_folders: Folders, layout: Layout
) -> None:
    root = class_folders(ants=3, bees=3)
    run(root, layout)
    before = layout.manifest.read_bytes()
    (root / "ants" / "bad.jpg").write_bytes(b"x")
    with pytest.raises(DataError) as error:
        run(root, layout, max_quarantined_fraction=0.05)
    assert "1 of 7 files" in str(error.value)
    assert "ants/bad.jpg: not an image of a known format" in str(error.value)
    assert "At most 5% was expected" in str(error.value)
    assert layout.manifest.read_bytes() == before


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"ants": 3}, r"holds usable images of 1 class \(ants\)"),
        ({"ants": 3, "bees": 1}, r"1 class in .* has a single usable image \(bees\)"),
    ],
)
def test_data_that_cannot_train_a_classifier_are_refused(
    class_folders: Folders, layout: Layout, counts: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run(class_folders(**counts), layout)


def test_a_missing_an_empty_and_an_odd_root_are_told_apart(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(DataError, match="does not exist"):
        run(tmp_path / "nowhere", layout)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image in a class folder"):
        run(tmp_path / "empty", layout)
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is a file of another kind"):
        run(tmp_path / "photos.zip", layout)


def test_the_summary_does_not_depend_on_names_but_on_bytes_and_labels(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=3, bees=3)
    run(root, layout)
    before = ValidationSummary.of(layout).data_sha256
    (root / "ants" / "000.png").rename(root / "ants" / "renamed.png")
    run(root, layout)
    assert ValidationSummary.of(layout).data_sha256 == before
    (root / "ants" / "renamed.png").rename(root / "bees" / "moved.png")
    run(root, layout)
    assert ValidationSummary.of(layout).data_sha256 != before


def test_a_manifest_that_breaks_its_schema_is_refused_by_the_next_stage(class_folders: Folders, layout: Layout) -> None:
    manifest = run(class_folders(ants=3, bees=3), layout)
    manifest.with_columns(image_id=pl.lit("xyz")).write_parquet(layout.manifest)
    with pytest.raises(CheckError, match=r"breaks .* rules of its schema .*Run `dvc repro --force validate`"):
        tables.read(layout.manifest, tables.MANIFEST, "validate")


def test_a_table_that_breaks_its_schema_is_not_written(tmp_path: Path) -> None:
    table = pl.DataFrame({"image_id": ["ab"], "path": ["x"], "label": ["y"], "group": ["z"], "split": ["tset"]})
    with pytest.raises(DataError, match=r"breaks 2 rules .*isin"):
        tables.write(tmp_path / "splits.parquet", table, tables.SPLITS)
    assert list(tmp_path.iterdir()) == []


def test_hymenoptera_is_read_as_train_and_val(hymenoptera: Path, layout: Layout) -> None:
    manifest = run(hymenoptera, layout)
    assert dict(manifest["given_split"].value_counts().iter_rows()) == {"train": 245, "val": 153}
    assert dict(manifest["format"].value_counts().iter_rows()) == {"JPEG": 397, "GIF": 1}


def test_a_copy_in_train_is_called_leakage_in_the_log_and_in_the_summary_of_the_splits(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders("data/Training", ants=6, bees=6).parent
    for number, (label, copied) in enumerate([("ants", "000"), ("ants", ""), ("bees", "006"), ("bees", "007")]):
        (root / "Testing" / label).mkdir(parents=True, exist_ok=True)
        data = (
            encoded(photograph(90 + number)) if not copied else (root / f"Training/{label}/{copied}.png").read_bytes()
        )
        (root / "Testing" / label / f"{number}.png").write_bytes(data)
    run(root, layout, max_quarantined_fraction=0.0)
    splitting.run(params_file.load(ROOT / "params.yaml"), layout)
    told = "leakage in the data: 3 of 4 given test images (75%) have a byte-identical copy in the given train"
    assert told in " ".join(capsys.readouterr().err.split())
    summary = dataset.read_summary(layout)
    assert summary.copies_in_train == {"test": 3}
    assert summary.warnings[0].startswith(told)  # the report shows all warnings
    assert summary.n_images["test"] == 4
    assert summary.n_images["train"] + summary.n_images["val"] == 9
