"""`headstart predict | verify | info` on a finished model, where nothing of the pipeline is installed."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pty
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from PIL import Image

from headstart.commands import main as cli
from tests.support.images import ROOT
from tests.support.projects import Project
from tests.support.wheels import UV, bare_environment, built_wheel, installed


@pytest.fixture
def model(project: Project) -> Path:
    return project.root / "artifacts" / "model"


def photos_of(project: Project) -> list[str]:
    return [str(path) for path in sorted((project.root / "photos").rglob("*.jpg"))]


def test_predict_names_what_evaluate_named(project: Project, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.read_parquet(project.root / "artifacts" / "evaluation" / "predictions.parquet")
    paths = [str(project.root / "photos" / path) for path in table["path"]]
    assert cli.main(["predict", str(model), *paths, "--json", "--top", "2"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["label"] for answer in answers] == table["predicted"].to_list()
    assert [answer["probability"] for answer in answers] == pytest.approx(table["probability"].to_list(), abs=1e-4)
    assert [answer["novelty"] for answer in answers] == pytest.approx(table["novelty"].to_list(), abs=0.05)
    below = json.loads((model / "model.json").read_text())["abstain_below"]
    assert [answer["abstains"] for answer in answers] == [answer["probability"] < below for answer in answers]
    assert [[each["label"] for each in answer["top"]] for answer in answers] == [
        sorted(("ants", "bees"), key=lambda name, first=answer["label"]: name != first) for answer in answers
    ]


def test_sets_of_labels_are_those_that_evaluate_scored(base: Project, capsys: pytest.CaptureFixture[str]) -> None:
    artifacts = base.root / "artifacts"
    facts = json.loads((artifacts / "model" / "model.json").read_text())
    sets = facts["label_sets"]
    assert sets == json.loads((artifacts / "evaluation" / "label_sets.json").read_text())
    out_of_fold = pl.read_parquet(artifacts / "head" / "out_of_fold.parquet")
    rank = math.ceil(0.9 * (len(out_of_fold) + 1))
    assert sets["coverage"] == 0.9
    assert sets["quantiles"] == [np.sort(out_of_fold["mass_above"])[rank - 1]]
    assert (out_of_fold["mass_above"] < out_of_fold["probability"]).to_list() == out_of_fold["correct"].to_list()

    table = pl.read_parquet(artifacts / "evaluation" / "predictions.parquet")
    paths = [str(base.root / "photos" / path) for path in table["path"]]
    assert cli.main(["predict", str(artifacts / "model"), *paths, "--json", "--set"]) == 0
    found = [json.loads(line)["label_set"] for line in capsys.readouterr().out.splitlines()]
    held = [label in each for label, each in zip(table["label"], found, strict=True)]
    assert np.mean(held) == pytest.approx(facts["test"]["set_coverage"], abs=1e-6)
    assert np.mean([len(each) for each in found]) == pytest.approx(facts["test"]["mean_set_size"], abs=1e-6)
    card = (artifacts / "model" / "MODEL_CARD.md").read_text()
    assert f"{facts['test']['set_coverage']:.2%} do (95% interval" in card


def test_predict_prints_a_line_an_image(project: Project, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = photos_of(project)[:3]
    assert cli.main(["predict", str(model / "model.onnx"), *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == paths
    assert all(line.split()[1] in ("ants", "bees") for line in lines)


def test_an_unreadable_image_is_told_and_the_others_are_answered(
    project: Project, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("<html>")
    good = photos_of(project)[0]
    assert cli.main(["predict", str(model), str(bad), good, str(tmp_path / "gone.jpg")]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(good)
    assert f"predict: {bad}: not an image of a known format. An image was expected." in err
    assert "gone.jpg: No such file or directory" in err


def test_predict_takes_folders_patterns_and_a_list_on_stdin(
    project: Project, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = project.root / "photos"
    expected = photos_of(project)

    def paths_of(*words: str) -> list[str]:
        assert cli.main(["predict", str(model), *words, "--format", "csv"]) == 0
        header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
        assert header == ["path", "label", "probability", "abstains", "novelty"]
        for _, label, probability, abstains, novelty in rows:
            assert label in ("ants", "bees")
            assert 0.5 <= float(probability) <= 1
            assert abstains in ("true", "false")
            assert 0 <= float(novelty) <= 1
        return [row[0] for row in rows]

    (photos / "notes.txt").write_text("no image")
    assert paths_of(str(photos)) == expected
    assert paths_of(f"{photos}/*/00*.jpg") == [path for path in expected if Path(path).name.startswith("00")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(expected[:3]) + "\n"))
    assert paths_of("-") == expected[:3]
    assert cli.main(["predict", str(model), str(model / "conformance" / "none")]) == 2
    (project.root / "empty").mkdir()
    assert cli.main(["predict", str(model), str(project.root / "empty")]) == 1
    assert "no image was found" in capsys.readouterr().err


def test_images_of_one_size_go_together_and_the_answers_are_the_same(
    project: Project, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answers(*options: str) -> list[dict[str, object]]:
        assert cli.main(["predict", str(model), str(project.root / "photos"), "--json", *options]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    alone, together = answers("--batch", "1"), answers("--batch", "100")
    assert [each["path"] for each in together] == photos_of(project)
    assert [each["label"] for each in together] == [each["label"] for each in alone]
    probabilities = [[each["probability"] for each in some] for some in (alone, together)]
    assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-5)


def test_several_classes_are_columns(project: Project, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(model), photos_of(project)[0], "--format", "csv", "--top", "2"]) == 0
    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["path", "label_1", "probability_1", "label_2", "probability_2", "abstains", "novelty"]
    assert float(row[2]) + float(row[4]) == pytest.approx(1, abs=1e-5)


def test_many_images_show_how_far_it_is(project: Project, model: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "headstart", "predict", str(model), str(project.root / "photos")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True)
    os.close(theirs)
    assert len(done.stdout.splitlines()) == 24
    assert re.search(r"predict: 24/24 images, \d+ per second", os.read(ours, 4096).decode())


def test_the_checksums_are_those_of_sha256sum(model: Path) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=model, check=True)
    named = {line.split("  ")[1] for line in (model / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert named == there - {"SHA256SUMS"}


def test_odd_images_are_among_the_conformance_vectors(model: Path) -> None:
    folder = model / "conformance"
    names = {each["file"] for each in json.loads((folder / "expected.json").read_text())["images"]}
    assert {"gray.jpg", "turned.jpg", "transparent.png", "tiny.png", "huge.jpg", "wide.png"} <= names
    with Image.open(folder / "gray.jpg") as gray, Image.open(folder / "turned.jpg") as turned:
        assert gray.mode == "L"
        assert turned.getexif()[0x0112] == 6
    with Image.open(folder / "tiny.png") as tiny, Image.open(folder / "huge.jpg") as huge:
        assert (tiny.size, huge.size) == ((7, 5), (4000, 3000))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_verify_agrees_on_the_machine_that_exported(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(model)]) == 0
    assert "conformance images agree" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["other probabilities", "other label", "other model", "lost image", "lost vectors"])
def test_verify_refuses_what_differs(model: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    vectors = model / "conformance" / "expected.json"
    expected = json.loads(vectors.read_text())
    if damage == "other probabilities":
        expected["images"][0]["probabilities"] = [0.5, 0.5]
        message = "conformance images differ"
    elif damage == "other label":
        (expected["images"][0]["label"],) = {"ants", "bees"} - {expected["images"][0]["label"]}
        message = "conformance images differ"
    elif damage == "other model":
        with (model / "model.onnx").open("ab") as file:
            file.write(b"\x00")
        message = "but SHA256SUMS lists"
    elif damage == "lost image":
        (model / "conformance" / expected["images"][0]["file"]).unlink()
        message = "cannot be read"
    if "probabilities" in damage or "label" in damage:
        vectors.write_text(json.dumps(expected))
        sums = (model / "SHA256SUMS").read_text().splitlines()  # whoever did this has thought of the checksums
        digest = sha256(vectors.read_bytes()).hexdigest()
        kept = [f"{digest}  conformance/expected.json" if "expected" in line else line for line in sums]
        (model / "SHA256SUMS").write_text("\n".join(kept) + "\n")
    if damage == "lost vectors":
        vectors.unlink()
        message = "cannot be read"
    assert cli.main(["verify", str(model)]) == 1
    assert message in capsys.readouterr().err


def test_info_tells_what_the_file_says_of_itself(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(model)]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["classes"] == "ants, bees"
    assert told["backbone"] == "timm/test_efficientnet"
    facts = json.loads((model / "model.json").read_text())
    for name in ("weights_sha256", "training_data_sha256"):
        assert told[name] == facts[name]
        assert len(told[name]) == 64
    assert json.loads(told["temperature"]) == facts["temperature"]
    assert json.loads(told["preprocessing"])["input_px"] == 64
    assert {"onnxruntime", "torch", "timm", "headstart"} <= set(json.loads(told["versions"]))


def test_what_is_no_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path)]) == 1
    assert "does not exist. A model.onnx, or a folder with one, was expected." in capsys.readouterr().err
    shutil.copy(ROOT / "LICENSE", tmp_path / "model.onnx")
    assert cli.main(["predict", str(tmp_path), "x.jpg"]) == 1
    assert "cannot be loaded by onnxruntime" in capsys.readouterr().err


def test_the_model_folder_holds_what_it_promises(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == [
        "MODEL_CARD.md",
        "SHA256SUMS",
        "bom.cdx.json",
        "conformance",
        "model.json",
        "model.onnx",
        "reference.json",
    ]
    jsonschema.validate(
        json.loads((model / "model.json").read_text()),
        json.loads((ROOT / "headstart/handover/model.schema.json").read_text()),
    )
    expected = json.loads((model / "conformance" / "expected.json").read_text())
    files = {path.name for path in (model / "conformance").iterdir()} - {"expected.json"}
    assert {vector["file"] for vector in expected["images"]} == files
    assert all(abs(np.sum(vector["probabilities"]) - 1) < 1e-5 for vector in expected["images"])


def test_an_export_that_is_repeated_gives_the_same_bytes(project: Project) -> None:
    """The card's metadata and the bill of materials follow from the run, not from the clock or from chance."""
    before = project.artefacts()
    assert "artifacts/export/bom.cdx.json" in before
    project.must("python", "-m", "tasks", "export", PYTHONHASHSEED="1")
    assert project.artefacts() == before


def test_a_host_with_the_base_dependencies_alone_can_predict_verify_and_inform(
    project: Project, model: Path, tmp_path: Path
) -> None:
    handed_over = tmp_path / "handed over"
    shutil.copytree(model, handed_over)
    commands = installed(built_wheel(tmp_path), tmp_path / "venv")
    environment = bare_environment(commands, tmp_path / "home")

    def run(*arguments: str, status: int = 0) -> str:
        command = [str(commands / "headstart"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-2, text=True)
        assert done.returncode == status, done.stdout
        return done.stdout

    listed = subprocess.run(
        [UV, "pip", "list", "--python", str(commands / "python"), "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages = {package["name"] for package in json.loads(listed)}
    assert {"numpy", "onnxruntime", "pillow"} <= packages
    assert not packages & {"torch", "torchvision", "timm", "onnx", "polars", "dvc", "prefect", "scipy", "pydantic"}
    assert "conformance images agree" in run("verify", str(handed_over))
    assert "timm/test_efficientnet" in run("info", str(handed_over))
    photo = photos_of(project)[0]
    answer = json.loads(run("predict", str(handed_over), photo, "--json"))
    assert answer["label"] in ("ants", "bees")
    assert run("--version").startswith("headstart 0")
    for command in ("new", "run", "status", "flow"):
        said = run(command, *(["birds"] if command == "new" else []), status=1)
        assert re.match(rf"{command}: [\w.]+ is not installed, and `headstart {command}` needs it\.", said), said
        assert "pip install 'headstart[pipeline]'" in said
