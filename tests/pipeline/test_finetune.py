"""Fine-tuning within the pipeline: off, on, killed, on two processes, better, not better, and asked for nonsense."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
import pytest
from safetensors.numpy import load_file

from tests.support.projects import DEFAULT_BACKBONE, Project, begun

pytestmark = pytest.mark.slow  # runs of a whole pipeline; its parts have quicker tests

SHORT = ("finetune.enabled=true", "finetune.epochs=3", "finetune.batch_size=6", "finetune.views=2", "finetune.lr=1e-4")
SCHEDULE = "finetune.unfreeze={1: 0, 2: 1}"


def assign(project: Project, *assignments: str) -> None:
    project.must("python", "-m", "tasks", "set", *assignments)


def stage(project: Project, *words: str) -> str:
    return project.must("python", "-m", "tasks", *(words or ("finetune",)))


def outputs(project: Project) -> dict[str, str]:
    folder = project.root / "artifacts" / "finetune"
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def history(project: Project) -> list[dict[str, str]]:
    with (project.root / "artifacts/finetune/history.csv").open() as file:
        return list(csv.DictReader(file))


def record(project: Project, path: str) -> dict[str, object]:
    return json.loads((project.root / "artifacts" / path).read_text())


def tuned_record(project: Project) -> dict[str, object]:
    found = record(project, "finetune/finetune.json")["tuned"]
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the default backbone, whose layers are worth freezing."""
    project = begun(tmp_path_factory.mktemp("base") / "project", *DEFAULT_BACKBONE)
    project.must("dvc", "repro")
    return project


@pytest.fixture(scope="module")
def tuned(base: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """A project whose fine-tuning is done, and what `dvc repro` said. Not to be changed."""
    project = base.copy(tmp_path_factory.mktemp("tuned") / "project")
    assign(project, *SHORT, SCHEDULE)
    return project, project.must("dvc", "repro")


def test_off_it_says_so_and_the_frozen_one_ships(base: Project) -> None:
    assert list(outputs(base)) == ["finetune.json", "history.csv", "sums.sha256"]
    assert history(base) == []
    assert record(base, "finetune/finetune.json") == {"enabled": False, "tuned": None}
    assert record(base, "evaluation/candidates.json")["chosen"] == "frozen"
    assert record(base, "model/model.json")["candidate"] == "frozen"
    assert "Frozen or fine-tuned" not in (base.root / "artifacts/report.html").read_text()


def test_it_runs_what_it_touches_and_writes_what_the_frozen_path_writes(tuned: tuple[Project, str]) -> None:
    project, said = tuned
    assert re.findall(r"Running stage '(\w+)'", said) == [
        "finetune",
        "find_accepted",
        "evaluate",
        "quantize",
        "report",
        "export",  # the frozen one ships as before, so there is nothing to publish
    ]
    assert list(outputs(project)) == [
        "backbone.onnx",
        "finetune.json",
        "head.onnx",
        "history.csv",
        "model.safetensors",
        "sums.sha256",
        "validation.parquet",
    ]
    assert "up to date" in project.must("dvc", "status")
    assert "tuning" not in project.must("git", "status", "--short")
    assert not (project.root / "artifacts/tuning/checkpoint.safetensors").exists()
    assert "finetune" not in re.findall(r"Running stage '(\w+)'", project.must("dvc", "repro"))


def test_what_is_trained_is_kept_while_it_follows_from_the_same_and_is_whole(
    tuned: tuple[Project, str], tmp_path: Path
) -> None:
    project = tuned[0].copy(tmp_path / "project")
    before = outputs(project)
    for name in ("base/progress.py", "base/errors.py", "tuning/loop.py", "heads/sweep.py", "images/decoding.py"):
        path = project.root / "headstart" / name
        path.write_text(path.read_text() + "# a comment\n")
    said = project.must("dvc", "repro")
    assert "finetune: a network was trained from the same inputs and parameters before" in said
    assert "train_head: a head was fitted to the same features, labels and parameters before" in said
    assert "images computed" not in said.replace(" 0 images computed", "")
    assert outputs(project) == before
    damaged, kept = (
        project.root / "artifacts/finetune/model.safetensors",
        next(project.cache.glob("results/finetune/*/model.safetensors")),
    )
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert "epoch" not in project.must("dvc", "repro")  # DVC has it
    assert outputs(project) == before
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert "finetune: epoch 3/3" in project.must("dvc", "repro", "--force", "--single-item", "finetune")
    assert outputs(project) == before


def test_an_epoch_is_a_line_with_all_that_one_wants_to_know(tuned: tuple[Project, str]) -> None:
    number = r"\d+\.\d{4}"
    line = (
        rf"finetune: epoch 3/3: train loss {number}, val log loss {number}, val accuracy \d+\.\d\d%, learning rate"
        r" 0\.0e\+00, [\d,]+ trainable, \d+ images/s, 0 s left"
    )
    assert re.search(line, tuned[1]), tuned[1]
    assert (
        "epoch 1 of the head alone: from pixels, because caching the frozen layers takes 19 passes through them instead"
        " of 19" in tuned[1]
    )
    assert "epochs 2 to 3 of the head and the last layer group: from the cached output of 16 frozen groups" in tuned[1]


def test_step_0_is_the_frozen_candidate(tuned: tuple[Project, str]) -> None:
    project = tuned[0]
    facts, validation = (
        tuned_record(project),
        pl.read_parquet(project.root / "artifacts/finetune/validation.parquet"),
    )
    before = history(project)[0]
    assert before["epoch"] == "0"
    assert float(before["val_log_loss"]) == pytest.approx(validation["frozen_log_loss"].mean(), abs=1e-4)
    assert float(before["val_accuracy"]) == pytest.approx(validation["frozen_correct"].mean())
    assert facts["frozen_val_log_loss"] == pytest.approx(validation["frozen_log_loss"].mean(), abs=1e-6)


def test_frozen_layers_leave_as_they_came(tuned: tuple[Project, str]) -> None:
    """Of the shipped tensors those below the unfrozen group are the pretrained ones, bit for bit."""
    project = tuned[0]
    from headstart import params_file
    from headstart.backbones import networks

    loaded = networks.load(params_file.load(project.root / "params.yaml").backbone, Path(), print)
    written = load_file(project.root / "artifacts/finetune/model.safetensors")
    moved = {
        name
        for name, tensor in loaded.module.state_dict().items()
        if not np.array_equal(written[f"backbone.{name}"], tensor.numpy())
    }
    best = tuned_record(project)["best_epoch"]
    expected = ("blocks.6.0.", "conv_head", "bn2") if best in (2, 3) else ()
    assert all(name.startswith(expected) and "running" not in name for name in moved) if expected else not moved


def test_both_candidates_are_reported_and_one_is_chosen(tuned: tuple[Project, str]) -> None:
    project = tuned[0]
    choice = record(project, "evaluation/candidates.json")
    assert choice["chosen"] in ("frozen", "tuned")
    contest = choice["contest"]
    assert isinstance(contest, dict)
    assert set(contest["test"]) == {"frozen", "tuned"}
    for scores in contest["test"].values():
        assert scores["accuracy_low"] <= scores["accuracy"] <= scores["accuracy_high"]
    page = (project.root / "artifacts/report.html").read_text()
    assert "Frozen or fine-tuned" in page
    assert contest["why"].replace("'", "&#39;") in page
    assert "McNemar" in page
    assert record(project, "model/model.json")["candidate"] == choice["chosen"]
    of_test = record(project, "evaluation/metrics.json")["test"]
    assert of_test.items() >= contest["test"][choice["chosen"]].items()  # type: ignore[attr-defined]


def with_validation(project: Project, advantage: float) -> str:
    """Let validation say that fine-tuning lowers every image's loss by about `advantage`; run what follows."""
    path = project.root / "artifacts/finetune/validation.parquet"
    table = pl.read_parquet(path)
    noise = pl.Series(np.linspace(0, 0.01, len(table)))
    frozen = 1.0 + table["frozen_log_loss"]
    table = table.with_columns(frozen_log_loss=frozen, tuned_log_loss=frozen - advantage - noise)
    table.write_parquet(path)
    path.with_name("sums.sha256").unlink()  # without it the folder is taken as it is
    for name in ("evaluate", "quantize", "report", "export"):
        stage(project, name)
    return stage(project, "publish")


def test_what_is_better_ships_and_is_the_network_that_was_trained(tuned: tuple[Project, str], tmp_path: Path) -> None:
    project = tuned[0].copy(tmp_path / "project")
    with_validation(project, 0.5)
    model = record(project, "model/model.json")
    facts = tuned_record(project)
    assert model["candidate"] == "tuned"
    assert "fine-tuned" in (project.root / "artifacts/model/MODEL_CARD.md").read_text()
    report = (project.root / "artifacts/report.html").read_text()
    assert "Fine-tuning ships" in report
    assert "By random crops of 25% to 100% of the area, random flips: 2 views per image, in turn." in report
    assert report.count("an image and its variants") == 4
    assert record(project, "evaluation/candidates.json")["n_images"] == facts["n_train"]
    project.must("headstart", "verify", "artifacts/model")
    session = onnxruntime.InferenceSession(project.root / "artifacts/finetune/backbone.onnx")
    assert session.get_inputs()[0].name == "pixels"
    predictions = pl.read_parquet(project.root / "artifacts/evaluation/predictions.parquet")
    assert len(predictions) == model["test"]["n_images"]  # type: ignore[index]
    assert model["label_sets"]["n_images"] == facts["n_val"]  # type: ignore[index]


def test_what_is_not_better_does_not_ship_and_the_report_says_so(tuned: tuple[Project, str], tmp_path: Path) -> None:
    project = tuned[0].copy(tmp_path / "project")
    with_validation(project, -0.5)
    assert record(project, "model/model.json")["candidate"] == "frozen"
    assert "Fine-tuning does not ship" in (project.root / "artifacts/report.html").read_text()


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(("from the cached output", "epoch 6/6"), id="twice"),
        pytest.param(("from the cached output", "epoch 1/6", "epoch 6/6", "exporting"), id="often"),
    ],
)
def test_killed_at_any_point_it_ends_in_the_same_bytes(base: Project, tmp_path: Path, points: tuple[str, ...]) -> None:
    """SIGKILL to the real process: once layers' output is stored, within epochs, between phases, while exporting."""
    undisturbed, killed = base.copy(tmp_path / "undisturbed"), base.copy(tmp_path / "killed")
    for project in (undisturbed, killed):
        assign(project, *SHORT, "finetune.epochs=6", "finetune.unfreeze={1: 1, 6: 2}", "finetune.train_norms=true")
        assign(project, "finetune.ema_decay=0.9", "finetune.dropout=0.2", "finetune.checkpoint_minutes=1e-6")
    said = stage(undisturbed)
    assert "from the cached output of 16 frozen groups" in said
    assert "epoch 6 of the head and the last 2 layer groups: from pixels" in said

    for point in (*points, None):
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tasks", "finetune"],
            cwd=killed.root,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HEADSTART_CACHE": str(killed.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        heard = []
        for line in process.stdout:
            heard.append(line)
            if point and line.startswith("finetune: ") and point in line:
                process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == (-signal.SIGKILL if point else 0), "".join(heard)
        if point in ("exporting", None):
            assert not any("epoch 4/6" in line for line in heard)  # it went on where it was
    assert outputs(killed) == outputs(undisturbed)


def test_two_processes_have_the_loss_curve_of_one(base: Project, tmp_path: Path) -> None:
    one, two = base.copy(tmp_path / "one"), base.copy(tmp_path / "two")
    for project in (one, two):  # the best of all heads is right to the last digit here, which leaves nothing to learn
        assign(project, "train_head.kinds=[softmax]", "train_head.levels=last")
        stage(project, "train_head")
    for project, n_devices in ((one, 1), (two, 2)):
        assign(project, *SHORT, "finetune.epochs=6", "finetune.unfreeze={1: 1, 4: 2}", f"finetune.devices={n_devices}")
        said = stage(project)
        assert said.count("finetune: epoch 6/6") == 1
        made, anew = (
            rf"epochs {epochs}.*: from the cached output of 1[56] frozen groups" for epochs in ("1 to 3", "4 to 6")
        )
        assert re.search(made, said), said
        assert re.search(anew, said), said
    curves = [
        [(float(line["train_loss"] or 0), float(line["val_log_loss"])) for line in history(each)] for each in (one, two)
    ]
    assert np.allclose(*curves, rtol=0, atol=1e-4)
    assert len(set(curves[0])) == 7  # it does something in every epoch


def test_without_the_pixel_store_every_byte_is_the_same(tuned: tuple[Project, str], tmp_path: Path) -> None:
    project = tuned[0].copy(tmp_path / "project")
    before = outputs(project)
    shutil.rmtree(project.cache)  # else what is there would be taken
    shutil.rmtree(project.root / ".dvc/cache/runs")
    assign(project, "transform.keep_pixels=false")
    project.must("dvc", "repro")
    assert outputs(project) == before


def test_the_history_is_a_plot_of_dvcs(tuned: tuple[Project, str]) -> None:
    project = tuned[0]
    shown = json.loads(project.must("dvc", "plots", "show", "--json"))["data"]
    lines = json.dumps(shown["finetune"])
    assert "val_log_loss" in lines
    assert "train_loss" in lines


def test_a_learning_rate_is_proposed_and_drawn(base: Project, tmp_path: Path) -> None:
    project = base.copy(tmp_path / "project")
    assign(project, "finetune.batch_size=4")
    said = stage(project, "finetune", "--find-lr")
    assert re.search(r"finetune\.lr=\S+ is proposed", said)
    folder = project.root / "artifacts/tuning"
    assert (folder / "lr_range.svg").read_text().startswith("<?xml")
    assert (folder / "lr_range.csv").read_text().startswith("learning_rate,loss,smoothed_loss\n")
    assert "tuning" not in project.must("git", "status", "--short")


def test_layer_groups_are_listed_by_name(base: Project) -> None:
    said = stage(base, "backbone", "--list", "resnet18")
    assert said.splitlines()[0] == "torchvision/resnet18: 9 layer groups from the input to the head"
    assert re.search(r"^  stem +9,536 +9$", said, re.MULTILINE)
    assert re.search(r"^  layer4\.1 +4,720,640 +1$", said, re.MULTILINE)
    assert re.search(r"^  head +512 +0: always", said, re.MULTILINE)
    failed = base.run("python", "-m", "tasks", "backbone", "--list", "resnt18")
    assert failed.returncode == 1
    assert "Did you mean 'resnet18'?" in failed.stdout


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["finetune.unfreeze=99"], r"finetune\.unfreeze asks for 99 layer groups, but the backbone has 17\. 0 to 17"),
    ],
)
def test_what_only_the_network_can_refuse(assignments: list[str], said: str, base: Project, tmp_path: Path) -> None:
    project = base.copy(tmp_path / "project")
    assign(project, "finetune.enabled=true", *assignments)
    failed = project.run("python", "-m", "tasks", "finetune")
    assert failed.returncode == 1
    assert re.search(said, failed.stdout), failed.stdout
    assert "Traceback" not in failed.stdout
    assert record(project, "finetune/finetune.json") == {"enabled": False, "tuned": None}  # what was there stays


def test_features_of_other_weights_are_refused(base: Project, tmp_path: Path) -> None:
    project = base.copy(tmp_path / "project")
    assign(project, "finetune.enabled=true")
    path = project.root / "artifacts/backbone/backbone.json"
    path.write_text(path.read_text().replace('"weights_sha256": "5793', '"weights_sha256": "0000'))
    path.with_name("sums.sha256").unlink()  # without it the folder is taken as it is
    failed = project.run("python", "-m", "tasks", "finetune")
    assert failed.returncode == 1
    assert "but the features were computed with 000044248a93... The same weights were expected." in failed.stdout


def test_where_frozen_features_are_weak_it_lowers_the_error_by_a_third(base: Project, tmp_path: Path) -> None:
    """Handwritten digits: logistic regression on the last features has 5% of errors."""
    project = base.copy(tmp_path / "project")
    assign(project, "data.root=data/digits", "finetune.enabled=true", "finetune.epochs=6", "finetune.unfreeze=5")
    assign(project, "finetune.flip=false", "finetune.crop_area=0.6", "finetune.lr=3e-4")
    assign(project, "train_head.kinds=[softmax]", "train_head.levels=last")
    project.must("dvc", "repro")
    choice = record(project, "evaluation/candidates.json")
    test = choice["contest"]["test"]  # type: ignore[index]
    errors = {name: scores["n_errors"] for name, scores in test.items()}
    assert choice["chosen"] == "tuned"
    assert errors["tuned"] <= 0.7 * errors["frozen"]
    project.must("headstart", "verify", "artifacts/model")
