from __future__ import annotations

from pathlib import Path

import pytest

from headstart import class_folders, params_file
from headstart.base.errors import DataError, ParamError
from headstart.class_folders import split_of
from headstart.listing import Listing, NoImageError, list_images
from tests.support.images import ROOT


def listing(root: Path, names: str, layout: str = "auto") -> Listing:
    for name in names.split():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return list_images(root, "photos", layout)


def read(root: Path, names: str, layout: str = "auto") -> list[tuple[str | None, str]]:
    return [(each.given_split, each.label) for each in listing(root, names, layout).found]


@pytest.mark.parametrize("name", ["train", "Train", "TRAIN", "Training", "training_set", "Train-Images", "trainset"])
def test_folders_of_training_images_are_known_by_their_customary_names(name: str) -> None:
    assert split_of(name) == "train"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "val") for name in ("val", "Valid", "VALIDATION", "dev", "eval", "val_data")),
        *((name, "test") for name in ("test", "Testing", "TEST", "test set")),
        *((name, None) for name in ("bus", "trained", "testament", "train 1", "data", "set", "", "train_test")),
    ],
)
def test_folders_of_held_out_images_and_others_are_told_apart(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "held_out", "split"),
    [("Training", "Testing", "test"), ("Train", "Test", "test"), ("TRAIN", "VALID", "val"), ("training", "dev", "val")],
)
def test_training_against_testing_is_no_problem_of_two_classes(
    tmp_path: Path, train: str, held_out: str, split: str
) -> None:
    """The layout of a public set of brain scans was once trained as the classes Training and Testing."""
    names = " ".join(f"{folder}/{label}/1.jpg" for folder in (train, held_out) for label in ("glioma", "no"))
    found = read(tmp_path, names)
    assert sorted(found, key=str) == sorted(
        [("train", "glioma"), ("train", "no"), (split, "glioma"), (split, "no")], key=str
    )
    shown = train if train == "train" else f"{train} is train"
    assert f"pre-split class folders ({shown}, {held_out} is {split})" == listing(tmp_path, names).form


def test_two_folders_that_claim_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 folders are called like the split val \(valid, validation\).*rename one"):
        listing(tmp_path, "train/a/1.png train/b/1.png valid/a/1.png validation/a/1.png")


def test_a_class_that_is_called_train_is_a_class_beside_other_vehicles(tmp_path: Path) -> None:
    assert read(tmp_path, "bus/1.png train/1.png car/1.png") == [(None, "bus"), (None, "car"), (None, "train")]


def test_splits_that_hold_no_class_folders_are_never_taken_for_the_classes(tmp_path: Path) -> None:
    with pytest.raises(NoImageError, match=r"holds no image in a class folder .*Set data.layout to 'class' if"):
        listing(tmp_path, "train/1.png test/1.png")
    assert read(tmp_path, "", "class") == [(None, "test"), (None, "train")]


@pytest.mark.parametrize(
    ("names", "why", "classes"),
    [
        ("Art/bike/1.png Art/mug/1.png Photo/bike/1.png Photo/mug/1.png", "2 folders repeat .*bike, mug", "2 .*2"),
        ("animal/cat/1.png animal/dog/1.png car/1.png", r"1 folder holds only folders \(animal\)", "2 .*2"),
        ("seg_train/a/1.png seg_train/b/1.png seg_test/a/1.png", r"1 folder repeats .*\(a\)", "2 .*2"),
        ("a/cam1/1.png a/cam2/1.png a/1.png b/cam1/1.png b/1.png", "1 folder repeats .*cam1", "2 .*2"),
    ],
)
def test_folders_that_can_be_read_in_two_ways_are_not_guessed(
    tmp_path: Path, names: str, why: str, classes: str
) -> None:
    with pytest.raises(DataError, match=rf"where {why}.*the classes may be {classes}") as error:
        listing(tmp_path, names)
    assert "Set data.layout to 'class' for the former or to '*/class' for the latter" in str(error.value)
    assert len(set(read(tmp_path, "", "class"))) == 2
    assert {label for _, label in read(tmp_path, "", "*/class")} != {label for _, label in read(tmp_path, "", "class")}


def test_below_a_split_folders_are_not_guessed_either(tmp_path: Path) -> None:
    names = "Train/Art/a/1.png Train/Art/b/1.png Train/Photo/a/1.png Test/Art/a/1.png Test/Photo/b/1.png"
    with pytest.raises(DataError, match=r"data.layout to 'split/class' .* to 'split/\*/class' for the latter"):
        listing(tmp_path, names)
    found = listing(tmp_path, "", "split/domain/class").found
    assert {(each.given_split, each.label, each.slices) for each in found if each.given_split == "test"} == {
        ("test", "a", (("domain", "Art"),)),
        ("test", "b", (("domain", "Photo"),)),
    }


def test_a_folder_in_a_folder_in_an_archive_is_looked_into(tmp_path: Path) -> None:
    names = "caltech/101_ObjectCategories/ant/1.jpg caltech/101_ObjectCategories/bass/1.jpg caltech/README.txt"
    assert read(tmp_path, names) == [(None, "ant"), (None, "bass")]
    assert listing(tmp_path, "").form == "class folders, in 'caltech/101_ObjectCategories'"


def test_splits_in_the_one_folder_of_an_archive_are_found(tmp_path: Path) -> None:
    found = read(tmp_path, "archive/Train/a/1.png archive/Train/b/1.png archive/Test/a/1.png")
    assert found == [("test", "a"), ("train", "a"), ("train", "b")]


def test_a_class_folder_with_one_folder_inside_each_has_the_classes_outside(tmp_path: Path) -> None:
    """Tiny ImageNet's form."""
    assert read(tmp_path, "train/n01/images/1.png train/n02/images/1.png") == [("train", "n01"), ("train", "n02")]


def test_splits_inside_each_class_are_splits(tmp_path: Path) -> None:
    found = listing(tmp_path, "ants/train/1.png ants/test/1.png bees/train/1.png bees/test/1.png")
    assert [(each.label, each.given_split) for each in found.found] == [
        ("ants", "test"),
        ("ants", "train"),
        ("bees", "test"),
        ("bees", "train"),
    ]
    assert found.form == "pre-split class folders (train, test), by the levels class/split"


def test_a_layout_that_is_given_names_groups_and_slices(tmp_path: Path) -> None:
    found = listing(tmp_path, "ants/oslo/p1/1.png ants/1.png bees/rome/p2/1.png", "class/site/group")
    assert [each[1:] for each in found.found] == [
        ("ants", None, "p1", (("site", "oslo"),)),
        ("bees", None, "p2", (("site", "rome"),)),
    ]
    assert found.stray[0] == ("ants/1.png", "not as deep as data.layout says: class/site/group", True)
    assert found.form == "class folders, by the levels class/site/group"


def test_a_layout_has_no_effect_on_a_manifest_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"data.layout is 'class', and data.root is 'list.csv', a manifest"):
        list_images(tmp_path / "list.csv", "list.csv", "class")


@pytest.mark.parametrize("given", ["split", "class/*", "class/class", "Class", "", "a b/class", "label/class", "3"])
def test_a_layout_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    with pytest.raises(ParamError, match=r"data\.layout is .*class, split/class, \*/class or camera/class"):
        params_file.assign(tmp_path / "params.yaml", [f"data.layout={given}"])


@pytest.mark.parametrize("given", ["class", "split/class", "*/class", "*/split/*/class/group", "camera/class", "auto"])
def test_layouts_are_accepted(tmp_path: Path, given: str) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    assert params_file.assign(tmp_path / "params.yaml", [f"data.layout='{given}'"]).data.layout == given


def test_a_million_files_are_read_by_their_folders_alone() -> None:
    folders = {(f"class{number}",) for number in range(1000)}
    assert class_folders.read(folders, "auto", "photos").pattern == "class"
