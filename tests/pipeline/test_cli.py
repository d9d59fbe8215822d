"""`headstart predict | verify | info` on a finished model, where nothing of the pipeline is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headstart import cli
from tests.conftest import ROOT
from tests.pipeline.conftest import Project


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
    assert [[each["label"] for each in answer["top"]] for answer in answers] == [
        sorted(("ants", "bees"), key=lambda name, first=answer["label"]: name != first) for answer in answers
    ]


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
        expected["images"][0]["label"] = "wasps"
        message = "conformance images differ"
    elif damage == "other model":
        with (model / "model.onnx").open("ab") as file:
            file.write(b"\x00")
        message = "model.json promises"
    elif damage == "lost image":
        (model / "conformance" / expected["images"][0]["file"]).unlink()
        message = "cannot be read"
    vectors.write_text(json.dumps(expected))
    if damage == "lost vectors":
        vectors.unlink()
        message = "cannot be read"
    assert cli.main(["verify", str(model)]) == 1
    assert message in capsys.readouterr().err


def test_info_tells_what_the_file_says_of_itself(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(model)]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["classes"] == "ants, bees"
    assert told["backbone"] == "timm/tf_efficientnet_lite0"
    facts = json.loads((model / "model.json").read_text())
    for name in ("weights_sha256", "training_data_sha256"):
        assert told[name] == facts[name]
        assert len(told[name]) == 64
    assert json.loads(told["temperature"]) == facts["temperature"]
    assert json.loads(told["preprocessing"])["input_px"] == 224
    assert {"onnxruntime", "torch", "timm", "headstart"} <= set(json.loads(told["versions"]))


def test_what_is_no_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path)]) == 1
    assert "does not exist. A model.onnx, or a folder with one, was expected." in capsys.readouterr().err
    shutil.copy(ROOT / "LICENSE", tmp_path / "model.onnx")
    assert cli.main(["predict", str(tmp_path), "x.jpg"]) == 1
    assert "cannot be loaded by onnxruntime" in capsys.readouterr().err


def test_the_model_folder_holds_what_it_promises(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == ["MODEL_CARD.md", "conformance", "model.json", "model.onnx"]
    expected = json.loads((model / "conformance" / "expected.json").read_text())
    files = {path.name for path in (model / "conformance").iterdir()} - {"expected.json"}
    assert {vector["file"] for vector in expected["images"]} == files
    assert all(abs(np.sum(vector["probabilities"]) - 1) < 1e-5 for vector in expected["images"])


def test_a_host_with_the_base_dependencies_alone_can_predict_verify_and_inform(
    project: Project, model: Path, tmp_path: Path
) -> None:
    venv, handed_over = tmp_path / "venv", tmp_path / "handed over"
    shutil.copytree(model, handed_over)
    uv = str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    wheel = tmp_path / "source"
    shutil.copytree(ROOT / "headstart", wheel / "headstart")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, wheel / name)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), str(wheel)], check=True)

    def run(*arguments: str) -> str:
        command = [str(venv / "bin" / "headstart"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = subprocess.run(
        [uv, "pip", "list", "--python", str(venv / "bin" / "python"), "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installed = {package["name"] for package in json.loads(listed)}
    assert {"numpy", "onnxruntime", "pillow"} <= installed
    assert not installed & {"torch", "torchvision", "timm", "onnx", "polars", "dvc", "prefect", "scipy", "pydantic"}
    assert "conformance images agree" in run("verify", str(handed_over))
    assert "timm/tf_efficientnet_lite0" in run("info", str(handed_over))
    photo = photos_of(project)[0]
    answer = json.loads(run("predict", str(handed_over), photo, "--json"))
    assert answer["label"] in ("ants", "bees")
