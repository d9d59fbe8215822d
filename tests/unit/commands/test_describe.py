"""`headstart describe`, read back by Croissant's own library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlcroissant
import polars as pl
import pytest

from headstart import params_file
from headstart.base import tables
from headstart.commands import main as cli
from headstart.layout import Layout
from tasks import split, validate
from tests.support.images import ROOT


@pytest.fixture
def project(class_folders: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A project whose images are validated and split."""
    class_folders("my birds, 2nd try", **{"007": 9, "ibis": 8, "None": 3})
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    params = params_file.assign(tmp_path / "params.yaml", ["data.root=my birds, 2nd try"])
    layout = Layout.of(tmp_path, params)
    validate.run(params, layout)
    split.run(params, layout)
    monkeypatch.chdir(tmp_path)
    return layout


def described(layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.root / "out" / "croissant.json").read_text())
    return found


def test_croissants_library_reads_every_image_with_its_label_and_split(
    project: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["describe", "out", "--licence", "cc-by-4.0", "--url", "https://example.org/birds"]) == 0
    assert capsys.readouterr().out.endswith(
        "describe: Croissant recommends citeAs, datePublished too; no stage knows them. Add them to the file.\n"
    )
    dataset = mlcroissant.Dataset(jsonld=project.root / "out" / "croissant.json")
    assert dataset.metadata.ctx.issues.errors == set()
    assert dataset.metadata.license == ["https://spdx.org/licenses/CC-BY-4.0.html"]
    records = [
        {
            name.removeprefix("images/"): value.decode() if isinstance(value, bytes) else value
            for name, value in row.items()
        }
        for row in dataset.records("images")
    ]
    splits = tables.read(project.splits, tables.SPLITS, "split")
    expected = tables.read(project.manifest, tables.MANIFEST, "validate").join(
        splits.select("image_id", "split"), on="image_id"
    )
    assert pl.DataFrame(records).sort("path").equals(expected.select(records[0].keys()).sort("path"), null_equal=True)


def test_it_conforms_to_croissant_1_1_and_names_the_bytes_of_what_it_describes(project: Layout) -> None:
    assert cli.main(["describe", "out"]) == 0
    document = described(project)
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert document["description"] == "20 labelled images of 3 classes, read as class folders."
    (file,) = document["distribution"]
    assert file["contentUrl"] == "images.json"
    (project.root / "out" / "images.json").write_text("[]")
    with pytest.raises(mlcroissant.GenerationError, match=r"Download\(images"):
        list(mlcroissant.Dataset(jsonld=project.root / "out" / "croissant.json").records("images"))


def test_what_croissant_refuses_is_refused(project: Layout) -> None:
    assert cli.main(["describe", "out"]) == 0
    document = described(project)
    document["recordSet"][0]["field"][0]["source"]["fileObject"]["@id"] = "other.csv"
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=document)


def test_the_same_images_are_described_in_the_same_bytes(project: Layout) -> None:
    for folder in ("out", "again"):
        assert cli.main(["describe", folder]) == 0
    for name in ("croissant.json", "images.json"):
        assert (project.root / "out" / name).read_bytes() == (project.root / "again" / name).read_bytes()


def test_what_is_missing_or_wrong_is_told(project: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "out", "--licence", "free"]) == 1
    assert capsys.readouterr().err == ("describe: 'free' is no SPDX identifier. One such as CC-BY-4.0 was expected.\n")
    project.splits.unlink()
    assert cli.main(["describe", "out"]) == 1
    assert "dvc repro" in capsys.readouterr().err
    assert not (project.root / "out").exists()
