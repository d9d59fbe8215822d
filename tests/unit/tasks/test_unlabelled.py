"""The stage `unlabelled`: which images are kept, and that nothing else changes because of them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from headstart import params, params_file
from headstart.base import dataset, unlabelled
from headstart.base.errors import DataError, ParamError
from headstart.choosing import proposal
from headstart.embedding import features, pixels
from headstart.layout import Layout
from headstart.param_types import NO_IMAGES, NO_ROWS
from headstart.params import Params
from tasks import backbone, embed, split, transform, validate
from tasks import unlabelled as stage
from tests.support.images import ROOT, encoded, photograph
from tests.support.projects import SETTINGS, write_photographs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project whose labelled images have features."""
    root = tmp_path_factory.mktemp("project")
    write_photographs(root / "photos", 4)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (root / NO_IMAGES).write_text(NO_ROWS)
    values = params_file.assign(root / "params.yaml", list(SETTINGS))
    layout = Layout.of(root, values)
    for each in (validate, split, backbone, transform, embed):
        each.run(values, layout)
    return layout


def ran(project: Layout, given: str) -> Layout:
    values = params_of(project, given)
    layout = Layout.of(project.root, values)
    stage.run(values, layout)
    return layout


def params_of(project: Layout, given: str) -> Params:
    return params_file.assign(project.root / "params.yaml", [f"data.unlabelled={given}"])


def quarantined(layout: Layout) -> dict[str, str]:
    return dict(pl.read_csv(layout.unlabelled / "quarantine.csv").select("path", "reason").iter_rows())


@pytest.fixture
def elsewhere(project: Layout, tmp_path: Path) -> Path:
    """Five images without labels, one of them labelled, one a copy, beside what is no image."""
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(photograph(500 + number)))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    (tmp_path / "known.jpg").write_bytes((project.images / "ants" / "000.jpg").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("notes")
    return tmp_path


def test_the_list_as_shipped_names_no_images(project: Layout) -> None:
    assert (ROOT / NO_IMAGES).read_text() == NO_ROWS
    layout = ran(project, NO_IMAGES)
    assert len(unlabelled.read(layout)) == 0
    assert not layout.of_unlabelled().manifest.exists()


def test_images_of_a_folder_are_kept_whatever_their_folders_are_called(project: Layout, elsewhere: Path) -> None:
    layout = ran(project, str(elsewhere))
    images = unlabelled.read(layout)
    assert sorted(images.paths) == ["0.png", "1.png", "2.png"]
    assert images.given == [None] * 3
    assert list(images.image_ids) == sorted(images.image_ids)
    reasons = quarantined(layout)
    assert reasons["deep/er/copy.png"] == "the same bytes as 0.png"
    assert reasons["known.jpg"].startswith("it is among the labelled images")
    assert set(reasons) == {"deep/er/copy.png", "known.jpg", "broken.png", "notes.txt"}
    record = unlabelled.read_record(layout)
    assert (record.n_aside, record.n_copies, record.n_labelled_before) == (1, 1, 1)


def test_their_stores_are_of_the_same_kind_as_those_of_labelled_images(project: Layout, elsewhere: Path) -> None:
    """One contract, so that a row that one needed is there for the other: the cache is shared."""
    layout = ran(project, str(elsewhere))
    own, images = layout.of_unlabelled(), unlabelled.read(layout)
    known, new = features.opened(layout), features.opened(own)
    assert new.plain.contract == known.plain.contract
    assert new.record == known.record
    assert new.read(images.image_ids).shape == (3, known.plain.contract.row_shape[1])
    assert pixels.opened(own)(images.where).shape[0] == 3
    assert not set(images.image_ids) & set(dataset.read(layout).of(*dataset.SPLITS).image_ids)


def test_labels_of_a_manifest_are_kept_for_evaluation(project: Layout, elsewhere: Path) -> None:
    (elsewhere / "some.csv").write_text("path,label\n0.png,ants\n1.png,\n2.png,\n")
    images = unlabelled.read(ran(project, str(elsewhere / "some.csv")))
    assert dict(zip(images.paths, images.given, strict=True)) == {"0.png": "ants", "1.png": None, "2.png": None}


def test_a_folder_that_is_not_there_and_one_without_images_are_told(project: Layout, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.unlabelled is '.*absent', which does not exist"):
        ran(project, str(tmp_path / "absent"))
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of 1 files in '.*' can be used \(x.png"):
        ran(project, str(tmp_path))


def test_a_manifest_without_paths_is_told_by_the_parameters_name(project: Layout, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file\na.png\n")
    with pytest.raises(DataError, match=r"data.unlabelled is '.*list.csv', which lacks 1 columns \(path\)"):
        ran(project, str(tmp_path / "list.csv"))


def test_null_is_refused_with_what_stands_for_it(project: Layout) -> None:
    values = params_of(project, "null").model_dump(by_alias=True)
    assert values["data"]["unlabelled"] == NO_IMAGES
    values["data"]["unlabelled"] = None
    with pytest.raises(ParamError, match=r"data.unlabelled is None: .*it is unlabelled.csv, the empty list"):
        params.parse(values)


def test_a_folder_whose_images_all_have_labels_is_as_good_as_none(project: Layout, tmp_path: Path) -> None:
    """So it is after each image was labelled: the run that learns from them has to go on."""
    (tmp_path / "known.jpg").write_bytes((project.images / "ants" / "000.jpg").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    layout = ran(project, str(tmp_path))
    assert len(unlabelled.read(layout)) == 0
    record = unlabelled.read_record(layout)
    assert (record.n_images, record.n_labelled_before, record.n_aside) == (0, 1, 1)
    with pytest.raises(DataError, match="there are no images without labels, or all are labelled already"):
        proposal.proposed(layout, "margin", 5, 0)


def test_an_empty_inbox_is_none_whatever_systems_leave_there(project: Layout, tmp_path: Path) -> None:
    for name in (".gitkeep", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    layout = ran(project, str(tmp_path))
    assert unlabelled.read_record(layout).n_images == 0
    assert len(quarantined(layout)) == 3
