"""Wide grey images of 12 bits in files of 16: all of them is seen, in training and where the model is used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import headstart
from headstart.commands import main as cli
from headstart.images.formats import UnreadableError
from tests.support.images import deep_png, encoded, photograph
from tests.support.projects import Project, begun
from tests.support.serving import served

pytestmark = pytest.mark.slow  # runs of a whole pipeline; its parts have quicker tests

WHITE = 4095


def write_grey(folder: Path, n_images: int) -> None:
    """Write wide pictures of 0 to at most 4095, ants dark and bees bright, some of them in three channels."""
    for label, darkest in (("ants", 0), ("bees", 2000)):
        (folder / label).mkdir(parents=True)
        for number in range(n_images):
            picture = photograph(number + darkest, 40, 90)[..., 0].astype(np.uint16)
            levels = darkest + picture * 8 + number
            levels[0, 0] = WHITE
            data = deep_png(np.dstack([levels] * 3)) if number % 3 == 0 else encoded(Image.fromarray(levels))
            (folder / label / f"{number:03d}.png").write_bytes(data)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first run."""
    root = tmp_path_factory.mktemp("grey") / "project"
    project = begun(root, "transform.fit=pad")
    shutil.rmtree(root / "photos")
    write_grey(root / "photos", 12)
    (root / "photos" / "README.md").write_text("wide and deep")
    project.must("dvc", "repro")
    return project


def read(project: Project, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((project.root / "artifacts" / name).read_text())
    return found


def test_what_was_found_and_chosen_goes_with_the_model(grey: Project) -> None:
    assert read(grey, "validation/summary.json")["bits"] == 12
    assert read(grey, "pixels/decoding.json")["bits"] == 12
    told = read(grey, "model/model.json")
    assert told["bits"] == 12
    preprocessing = told["preprocessing"]
    assert isinstance(preprocessing, dict)
    assert (preprocessing["fit"], preprocessing["resize_px"], preprocessing["input_px"]) == ("pad", 64, 64)
    metadata = headstart.load(grey.root / "artifacts/model").metadata
    assert metadata["bits"] == "12"
    assert json.loads(metadata["preprocessing"])["fit"] == "pad"
    card = (grey.root / "artifacts/model/MODEL_CARD.md").read_text()
    assert "It sees the whole image, padded to a square with grey bars." in card
    assert "Files with 16 bits a channel hold values of 12 bits, as in training" in card
    page = (grey.root / "artifacts/report.html").read_text()
    assert "The network sees the whole image, padded to a square with grey bars." in page
    assert "Values of 12 bits in files with 16 bits a channel: 4095 is shown white." in page
    assert "whole image padded to 64 px" in page


def test_pixels_use_all_levels_and_show_the_ends(grey: Project) -> None:
    """Twelve bits read as sixteen were at most 16 levels."""
    from headstart import params_file
    from headstart.embedding import pixels
    from headstart.layout import Layout

    layout = Layout.of(grey.root, params_file.load(grey.root / "params.yaml"))
    table = pl.read_parquet(layout.splits)
    rows = pixels.opened(layout)(dict(table.select("image_id", "path").iter_rows()))
    assert len(np.unique(rows)) > 150
    height = round(64 * 40 / 90)
    top = (64 - height) // 2
    assert (rows[:, : top - 1] == 114).all()  # the bars: the grey of the mean
    assert (rows[:, top + 1 : top + height - 1].std(axis=(1, 2, 3)) > 10).all()


def test_deployment_reads_the_values_as_training_did(
    grey: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    grey.must("headstart", "verify", "artifacts/model")
    table = pl.read_parquet(grey.root / "artifacts/evaluation/predictions.parquet")
    files = [grey.root / "photos" / path for path in table["path"]]
    expected = pytest.approx(table["probability"].to_list(), abs=1e-4)
    model = headstart.load(grey.root / "artifacts/model")
    capsys.readouterr()
    assert cli.main(["predict", str(grey.root / "artifacts/model"), *map(str, files), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["probability"] for line in lines] == expected
    assert [answer.probability for answer in model.predict(files)] == expected
    with served(grey.root / "artifacts/model", tmp_path / "log") as serving:
        assert [serving.predict(file.read_bytes())[1]["probability"] for file in files] == expected
    plain = [Image.open(file) for file in files if Image.open(file).mode != "RGB"]
    of_plain = [row for file, row in zip(files, lines, strict=True) if Image.open(file).mode != "RGB"]
    assert [answer.probability for answer in model.predict(plain)] == pytest.approx(
        [row["probability"] for row in of_plain], abs=1e-4
    )


def test_deployment_refuses_values_that_training_never_had(grey: Project) -> None:
    model = headstart.load(grey.root / "artifacts/model")
    brighter = encoded(Image.fromarray(np.full((8, 8), 60_000, np.uint16)))
    with pytest.raises(UnreadableError, match=r"a value of 60000, where at most 4095 \(12 bits\) is expected"):
        model.predict(brighter)


def test_a_model_of_ordinary_images_says_nothing_of_either(base: Project) -> None:
    """So that it keeps its bytes."""
    metadata = headstart.load(base.root / "artifacts/model").metadata
    assert "bits" not in metadata
    assert "fit" not in json.loads(metadata["preprocessing"])
    card = (base.root / "artifacts/model/MODEL_CARD.md").read_text()
    assert "It sees only the centre square of an image." in card
    assert "16 bits" not in card


def test_a_failed_run_names_the_list_of_what_it_set_aside(project: Project) -> None:
    for number in range(5):
        (project.root / "photos/ants" / f"bad{number}.jpg").write_text("<html>")
    done = project.run("dvc", "repro", "validate")
    assert done.returncode != 0
    assert "All 5 files that were set aside are in artifacts/failed/quarantine.csv." in done.stdout
    listed = pl.read_csv(project.root / "artifacts/failed/quarantine.csv")
    assert listed["path"].to_list() == [f"ants/bad{number}.jpg" for number in range(5)]
    assert "artifacts/failed" not in project.must("git", "status", "--short", "--untracked-files=all")
