"""`validate` carries out the decisions of reviewed.csv, and touches no file."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from headstart import reviewed
from headstart.base import validation
from headstart.base.errors import DataError
from headstart.base.validation import ValidationSummary
from headstart.layout import Layout
from headstart.reviewed import Decision
from tests.support.images import encoded, photograph
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
    assert "reviewed.csv has 5 decisions: 2 images dropped, 2 changed, 1 kept" in said.out + said.err
    assert "1 of these concern images that are not here (gone.png)" in said.out + said.err


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
