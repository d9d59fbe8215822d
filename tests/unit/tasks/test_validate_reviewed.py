"""`validate` carries out the decisions of reviewed.csv, and touches no file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from headstart import params_file, reviewed
from headstart.base import dataset, decisions, validation
from headstart.base.errors import DataError
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout
from headstart.reviewed import Decision
from tasks import split
from tests.support.images import ROOT, encoded, photograph
from tests.support.validation import Folders, quarantine, run


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "project")


def about(file: Path, *what: str) -> Decision:
    return Decision(sha256(file.read_bytes()).hexdigest(), file.name, *what)  # type: ignore[arg-type]


def test_images_are_dropped_relabelled_grouped_and_kept(
    class_folders: Folders, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(ants=4, bees=4)
    files = sorted((root / "ants").iterdir())
    layout.root.mkdir(parents=True)
    decisions = [
        about(files[0], "drop"),
        about(files[1], "change", "bees"),
        about(files[2], "change", "", "burst 1"),
        about(files[3], "keep"),
        Decision("c" * 64, "gone.png", "drop"),
    ]
    reviewed.write(layout.reviewed, decisions)
    manifest = {row["image_id"]: row for row in run(root, layout).iter_rows(named=True)}
    assert decisions[0].image_id not in manifest
    assert manifest[decisions[1].image_id]["label"] == "bees"
    assert manifest[decisions[2].image_id]["group"] == "burst 1"
    assert manifest[decisions[3].image_id]["label"] == "ants"
    assert quarantine(layout) == {f"ants/{files[0].name}": "dropped in reviewed.csv"}
    summary = ValidationSummary.of(layout)
    assert (summary.n_dropped, summary.n_quarantined, summary.n_no_images) == (1, 0, 0)
    assert validation.quarantined(layout) == []
    said = capsys.readouterr()
    assert (
        "by reviewed.csv 1 image is dropped, 2 changed and 1 kept; 1 decision is about images that are not here"
        " (gone.png)\n"
    ) in said.out + said.err


def test_a_decision_settles_the_same_bytes_under_two_labels(class_folders: Folders, layout: Layout) -> None:
    root = class_folders(ants=2, bees=2)
    data = encoded(photograph(77))
    for label in ("ants", "bees"):
        (root / label / "twin.png").write_bytes(data)
    assert "the same bytes under 2 labels" in quarantine_after(root, layout)["ants/twin.png"]
    reviewed.write(layout.reviewed, [about(root / "ants/twin.png", "change", "bees")])
    assert run(root, layout).filter(image_id=sha256(data).hexdigest())["label"].to_list() == ["bees"]


def quarantine_after(root: Path, layout: Layout) -> dict[str, str]:
    run(root, layout)
    return quarantine(layout)


def test_the_split_of_an_image_is_moved(class_folders: Folders, layout: Layout) -> None:
    root = class_folders("data/train", ants=3, bees=3).parent
    for number, label in enumerate(("ants", "bees")):
        (root / "test" / label).mkdir(parents=True)
        (root / "test" / label / "a.png").write_bytes(encoded(photograph(100 + number)))
    file = sorted((root / "train/ants").iterdir())[0]
    layout.root.mkdir(parents=True)
    reviewed.write(layout.reviewed, [about(file, "change", "", "alike 1", "test")])
    manifest = run(root, layout)
    assert manifest.filter(image_id=about(file, "keep").image_id)["given_split"].to_list() == ["test"]


@pytest.mark.parametrize(
    ("given", "split", "said"),
    [
        ((), "test", "No split was expected"),
        (("train", "test"), "val", "Of test and train, which they give, one was expected"),
    ],
)
def test_a_split_that_the_data_do_not_give_is_refused(
    class_folders: Folders, layout: Layout, given: tuple[str, ...], split: str, said: str
) -> None:
    """Else this one image would be all that is held out."""
    root = class_folders("data/train" if given else "data", ants=3, bees=3)
    if given:
        root = root.parent
        for number, label in enumerate(("ants", "bees")):
            (root / "test" / label).mkdir(parents=True)
            (root / "test" / label / "a.png").write_bytes(encoded(photograph(100 + number)))
    layout.root.mkdir(parents=True)
    reviewed.write(layout.reviewed, [about(sorted(root.rglob("ants/*.png"))[0], "change", "", "", split)])
    with pytest.raises(DataError, match=r"reviewed.csv puts 1 images in splits that the data do not give") as caught:
        run(root, layout)
    assert said in str(caught.value)


def divided(layout: Layout, **changes: object) -> dataset.SplitSummary:
    values = params_file.load(ROOT / "params.yaml")
    split.run(values.model_copy(update={"split": values.split.model_copy(update=changes)}), layout)
    return dataset.read_summary(layout)


def test_what_is_decided_about_held_out_images_is_counted_by_what_was_carried_out(
    class_folders: Folders, layout: Layout
) -> None:
    root = class_folders("data/train", ants=6, bees=6).parent
    for number in range(8):
        folder = root / "val" / ("ants" if number % 2 else "bees")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encoded(photograph(100 + number)))
    layout.root.mkdir(parents=True)
    run(root, layout)
    before = divided(layout)
    assert (before.decided, before.decided.told()) == (decisions.NOTHING, "")
    train, val = sorted((root / "train/ants").iterdir()), root / "val"
    reviewed.write(
        layout.reviewed,
        [
            about(val / "bees/0.png", "drop"),
            about(val / "ants/1.png", "drop"),
            about(val / "bees/2.png", "change", "ants"),
            about(val / "ants/3.png", "keep"),
            about(train[0], "drop"),
            about(train[1], "change", "bees"),
            about(train[2], "change", "", "alike 1", "val"),
            about(val / "bees/4.png", "change", "", "alike 1", "val"),
        ],
    )
    run(root, layout)
    reviewed.write(layout.reviewed, [])  # nothing is read from it any more
    after = divided(layout)
    held_out = {"n_dropped": 2, "n_relabelled": 1, "n_moved_in": 1, "n_moved_out": 0, "n_unknown": 0}
    assert after.decided.model_dump() == held_out
    assert after.n_images["test"] == 8 - 2 + 1
    (note,) = after.notes
    assert note.startswith("train and val are given, but no test: the given val is the held-out test set")
    assert note.endswith("; reviewed.csv moved 1 further image into test")
    rows = decisions.read(layout.validation)
    assert [each.path for each in rows if each.is_dropped] == [
        "train/ants/" + train[0].name,
        "val/ants/1.png",
        "val/bees/0.png",
    ]
    assert decisions.told(rows) == (
        "Images by decisions in reviewed.csv: 3 dropped, 2 given another label, 2 put in a group, 1 moved to another"
        " split."
    )


@pytest.mark.parametrize(("method", "n_known"), [("hash", True), ("stratified", False)])
def test_where_splits_are_drawn_a_dropped_image_counts_by_the_split_that_it_would_be_in(
    class_folders: Folders, layout: Layout, method: str, n_known: bool
) -> None:
    root = class_folders(ants=20, bees=20)
    layout.root.mkdir(parents=True)
    run(root, layout)
    divided(layout, method=method)
    held_out = dataset.read(layout).of("test")
    assert 0 < len(held_out) < 40
    reviewed.write(
        layout.reviewed,
        [
            about(root / path, "drop")
            for path in (
                *held_out.paths[:2],
                "ants/"
                + next(file.name for file in (root / "ants").iterdir() if f"ants/{file.name}" not in held_out.paths),
            )
        ],
    )
    run(root, layout)
    found = divided(layout, method=method).decided
    assert (found.n_dropped, found.n_unknown) == ((2, 0) if n_known else (0, 3))
    assert ("2 dropped" if n_known else "3 dropped that may have been held out") in found.told()
