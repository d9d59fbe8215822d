"""`make run` and `dvc repro` from end to end."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from playwright.sync_api import expect

from headstart.images.decoding import decode
from tasks.__main__ import STAGES
from tests.conftest import FIRST_RUN
from tests.support.browser import opened
from tests.support.projects import DEFAULT_BACKBONE, Project, write_photographs


def metrics_of(project: Project) -> dict[str, float]:
    return json.loads((project.root / "artifacts" / "evaluation" / "metrics.json").read_text())["test"]


def test_a_run_ends_with_the_accuracy_where_things_are_and_three_commands_that_work(project: Project) -> None:
    said = project.must("make", "run", "DATA=photos")
    accuracy, _, report, model, _, following, *commands = said.strip().splitlines()[-9:]
    assert re.fullmatch(r"  \d+\.\d\d% of \d+ held-out images right \(95% interval .* to .*\)", accuracy)
    assert report.split() == ["report", "artifacts/report.html"]
    assert model.split() == ["model", "artifacts/model/model.onnx"]
    assert all((project.root / line.split()[1]).is_file() for line in (report, model))
    assert following.strip() == "next"
    predict, serve, accept = (re.split("  +", line.strip())[0] for line in commands)
    assert predict == ".venv/bin/headstart predict artifacts/model IMAGE..."
    assert len(project.must(*predict.replace("IMAGE...", "photos/ants").split()).splitlines()) == 12
    assert serve == ".venv/bin/headstart serve artifacts/model"
    assert accept == ".venv/bin/headstart accept"
    assert "\x1b" not in said


def test_the_log_of_a_whole_run_is_short_and_is_plain_without_a_terminal(base: Project) -> None:
    """At 100 columns. DVC itself writes four lines a stage and five at the end; the stages write 23 at most."""
    said = (base.root.parent / FIRST_RUN).read_text()
    assert set(re.findall(r"Running stage '(\w+)'", said)) == set(STAGES)
    shown = sum(max(1, -(-len(line) // 100)) for line in said.splitlines())
    assert shown <= 4 * len(STAGES) + 5 + 23
    assert not re.search(r"[\r\x1b]", said)  # no bar, no colour


def test_nothing_to_do_runs_nothing_and_changes_nothing(project: Project) -> None:
    before = project.artefacts()
    said = project.must("dvc", "repro")
    assert "Running stage" not in said
    assert project.artefacts() == before


def test_own_data_need_no_torch_and_no_git_identity_and_leave_params_and_lock_truthful(
    project: Project, tmp_path: Path
) -> None:
    write_photographs(project.root / "my photos", 6, first=50)
    (tmp_path / "poison").mkdir()
    for name in ("torch", "torchvision", "timm"):
        (tmp_path / "poison" / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    said = project.must("make", "run", "DATA=my photos", PYTHONPATH=str(tmp_path / "poison"))
    assert set(re.findall(r"Running stage '(\w+)'", said)) == set(STAGES) - {"sample", "backbone"}
    poisoned = {"PYTHONPATH": str(tmp_path / "poison"), "HEADSTART_CACHE": str(tmp_path / "empty")}
    assert project.run("python", "-m", "tasks", "backbone", **poisoned).returncode != 0  # exported anew, it needs torch
    assert re.search(r"^  root: my photos ", (project.root / "params.yaml").read_text(), re.MULTILINE)
    assert b"my photos" in project.lock
    assert "up to date" in project.must("dvc", "status")
    changed = project.must("git", "status", "--short").splitlines()
    tracked = {line[3:].strip('"') for line in changed if not line.startswith("??")}
    assert tracked == {"params.yaml", "my photos.dvc", ".gitignore"}  # the images are DVC's now


def test_new_images_cost_their_own_share_and_move_no_old_one_and_without_them_every_byte_is_as_before(
    project: Project,
) -> None:
    def splits() -> dict[str, str]:
        table = pl.read_parquet(project.root / "artifacts" / "splits.parquet")
        return dict(table.select("image_id", "split").iter_rows())

    before, bytes_before = splits(), project.artefacts()
    write_photographs(project.root / "photos", 2, first=30)
    said = project.must("dvc", "repro")
    assert "transform: 4 images computed, 24 reused" in said
    assert "embed: 4 images computed, 24 reused" in said
    assert "Running stage 'backbone'" not in said
    assert {image_id: split for image_id, split in splits().items() if image_id in before} == before
    for path in (project.root / "photos").rglob("03?.jpg"):
        path.unlink()
    project.must("dvc", "repro")
    assert project.artefacts() == bytes_before


@pytest.mark.slow
def test_renamed_images_cost_no_pass_through_the_network(project: Project) -> None:
    photos = project.root / "photos" / "ants"
    (photos / "000.jpg").rename(photos / "zzz.jpg")
    said = project.must("dvc", "repro")
    assert "Running stage 'split'" in said
    assert "transform: 0 images computed, 24 reused" in said
    assert "Running stage 'train_head'" not in said or "embed: 0 images computed" in said


def test_the_exported_model_gives_the_evaluated_predictions_on_the_original_files(project: Project) -> None:
    predictions = pl.read_parquet(project.root / "artifacts" / "evaluation" / "predictions.parquet")
    session = onnxruntime.InferenceSession(str(project.root / "artifacts" / "model" / "model.onnx"))
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    for path, predicted, expected in predictions.select("path", "predicted", "probabilities").iter_rows():
        image = decode((project.root / "photos" / path).read_bytes()).rgb
        probabilities, label_index = session.run(["probabilities", "label_index"], {"image": image[None]})
        assert classes[label_index[0]] == predicted
        assert np.abs(probabilities[0] - expected).max() < 1e-4


def test_export_refuses_a_model_that_is_not_the_one_evaluated(project: Project) -> None:
    path = project.root / "artifacts" / "evaluation" / "predictions.parquet"
    table = pl.read_parquet(path)
    swapped = pl.col("predicted").replace_strict({"ants": "bees", "bees": "ants"})
    table.with_columns(predicted=swapped, correct=~pl.col("correct")).write_parquet(path)
    path.with_name("sums.sha256").unlink()  # without it the folder is taken as it is
    before = (project.root / "artifacts" / "model" / "model.onnx").read_bytes()
    done = project.run("python", "-m", "tasks", "export")
    assert done.returncode == 1
    assert f"gives another label than evaluate on {len(table)}" in done.stdout
    assert "Traceback" not in done.stdout
    assert (project.root / "artifacts" / "model" / "model.onnx").read_bytes() == before


def test_dvc_shows_metrics_and_draws_plots_and_hands_the_model_over(project: Project, tmp_path: Path) -> None:
    shown = json.loads(project.must("dvc", "metrics", "show", "--json"))
    assert "artifacts/evaluation/metrics.json" in json.dumps(shown)
    assert str(metrics_of(project)["accuracy"]) in json.dumps(shown)
    assert "images_per_class" not in json.dumps(shown)  # of many classes each would be a column
    assert "test.accuracy" in project.must("dvc", "exp", "show", "--only-changed", "--no-pager", "--csv")
    said = project.must("dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert "failed" not in said
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "confusion" in page
    assert "reliability" in page
    assert "risk_coverage" in page
    assert "learning_curve" in page
    assert "Linear" in page or "vega" in page


def test_a_registered_model_is_handed_over_by_its_name(project: Project, tmp_path: Path) -> None:
    project.must("git", "config", "user.name", "a")
    project.must("git", "config", "user.email", "a@example.org")
    project.must("git", "add", "dvc.lock", "params.yaml")
    project.must("git", "commit", "--quiet", "-m", "a model")
    project.must("gto", "register", "classifier", "--version", "v1.0.0")
    project.must("dvc", "artifacts", "get", str(project.root), "classifier", "--out", str(tmp_path / "got"))
    assert (tmp_path / "got" / "model.onnx").read_bytes() == (project.root / "artifacts/model/model.onnx").read_bytes()
    assert "conformance images agree" in project.must("headstart", "verify", str(tmp_path / "got"))


def test_images_that_change_behind_dvcs_back_stop_the_export(project: Project) -> None:
    predictions = pl.read_parquet(project.root / "artifacts" / "evaluation" / "predictions.parquet")
    victim = project.root / "photos" / predictions["path"][0]
    victim.write_bytes(victim.read_bytes() + b"x")
    done = project.run("python", "-m", "tasks", "export")
    assert done.returncode == 1
    assert "has changed since `validate` read it" in done.stdout


@pytest.mark.usefixtures("base")
def test_hymenoptera_reaches_the_known_accuracy(project: Project, hymenoptera: Path) -> None:
    project.must("python", "-m", "tasks", "set", *DEFAULT_BACKBONE)
    said = project.must("make", "run", f"DATA={hymenoptera}")
    assert "the given val is the held-out test set" in said
    found = metrics_of(project)
    assert found["n_images"] == 153
    assert found["accuracy"] >= 0.9477
    splits = pl.read_parquet(project.root / "artifacts" / "splits.parquet")
    assert splits.filter(pl.col("path").str.starts_with("val/"))["split"].unique().to_list() == ["test"]
    with opened() as page:
        page.goto(f"file://{project.root}/artifacts/report.html")
        expect(page.get_by_text("the given val is the held-out test set")).to_be_visible()
        mistakes = page.locator(".gallery:not(.findings) li")
        expect(mistakes).to_have_count(found["n_errors"])
        mistakes.first.get_by_role("button").click()
        expect(page.locator("dialog .alike img")).to_have_count(3)
        assert page.locator("dialog img").first.evaluate("image => image.naturalWidth") == 256
    verified = project.must("headstart", "verify", "artifacts/model")
    assert re.search(r"verify: 14 conformance images agree", verified)
