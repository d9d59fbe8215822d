"""Nothing is computed twice, and nothing is lost: parameters that go there and back, failed and killed stages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.projects import Project, write_photographs

RAN = re.compile(r"^Running stage '(\w+)':$", re.MULTILINE)


def ran(said: str) -> list[str]:
    """Return the stages that DVC ran; `publish` copies and `find_accepted` looks at git, and neither computes."""
    return [stage for stage in RAN.findall(said) if stage not in ("publish", "find_accepted")]


@pytest.mark.slow
def test_a_parameter_that_goes_there_and_back_runs_no_stage(project: Project) -> None:
    before = project.artefacts()
    project.must("python", "-m", "tasks", "set", "split.seed=1")
    said = project.must("dvc", "repro")
    assert "split" in ran(said)
    assert said.count("0 images computed, 24 reused") == 2
    project.must("python", "-m", "tasks", "set", "split.seed=0")
    said = project.must("dvc", "repro")
    assert ran(said) == []
    assert "Stage 'train_head' is cached" in said
    assert project.artefacts() == before


@pytest.mark.slow
def test_fine_tuning_off_and_on_trains_once(project: Project) -> None:
    short = ("finetune.epochs=2", "finetune.views=1", "finetune.batch_size=6", "finetune.warmup_epochs=0.0")
    project.must("python", "-m", "tasks", "set", *short, "finetune.enabled=true")
    assert "epoch 2/2" in project.must("dvc", "repro")
    tuned = project.artefacts()
    project.must("python", "-m", "tasks", "set", "finetune.enabled=false")
    project.must("dvc", "repro")
    project.must("python", "-m", "tasks", "set", "finetune.enabled=true")
    assert ran(project.must("dvc", "repro")) == []
    assert project.artefacts() == tuned
    shutil.rmtree(project.root / ".dvc/cache/runs")  # without DVC's run cache, the network is in ours
    said = project.must("dvc", "repro", "--force", "--single-item", "finetune")
    assert "taken from the cache" in said
    assert project.artefacts() == tuned


@pytest.mark.slow
def test_an_earlier_dataset_is_not_embedded_again(project: Project) -> None:
    before = project.artefacts()
    write_photographs(project.root / "photos", 2, first=30)
    assert "embed: 4 images computed, 24 reused" in project.must("dvc", "repro")
    for path in (project.root / "photos").rglob("03?.jpg"):
        path.unlink()
    assert set(ran(project.must("dvc", "repro"))) <= {"validate"}
    assert project.artefacts() == before


def test_after_a_stage_that_failed_dvc_checkout_brings_everything_back(project: Project) -> None:
    before, params = project.artefacts(), (project.root / "params.yaml").read_bytes()
    project.must("python", "-m", "tasks", "set", "train_head.levels=[nowhere]")
    failed = project.run("dvc", "repro")
    assert failed.returncode != 0
    assert not (project.root / "artifacts/head").exists()
    assert (project.root / "artifacts/model/model.onnx").is_file()
    (project.root / "params.yaml").write_bytes(params)
    project.must("dvc", "checkout")
    differs = {name for name, digest in project.artefacts().items() if before.get(name) != digest}
    assert differs == {"dvc.lock"}  # it notes that `rank` has run with these levels; it is off, and writes the same
    said = project.must("dvc", "repro")
    assert "Running stage" not in said
    assert project.artefacts() == before


READER = """
import sys
import time
from pathlib import Path
import numpy as np
from headstart import load
n_loaded = 0
while not Path(sys.argv[2]).exists():
    model = load(sys.argv[1])
    assert model.predict(np.zeros((40, 60, 3), np.uint8)).label in ("ants", "bees")
    n_loaded += 1
    time.sleep(0.02)
print(n_loaded)
"""


@pytest.mark.slow
def test_the_model_can_be_loaded_at_every_moment_of_ten_runs_and_ten_kills(project: Project) -> None:
    stop = project.root / "stop"
    command = [sys.executable, "-c", READER, str(project.root / "artifacts/model"), str(stop)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    environment = {**os.environ, "HEADSTART_CACHE": str(project.cache), "DVC_NO_ANALYTICS": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    published = set()
    try:
        for number in range(10):
            project.must("python", "-m", "tasks", "set", f"train_head.strengths=[{1 + number}.0]")
            process = subprocess.Popen(
                ["dvc", "repro", "train_head", "evaluate", "export", "publish"],
                cwd=project.root,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            time.sleep(1.0 + 0.8 * number)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            lock = project.root / ".dvc/tmp/rwlock"
            if lock.exists() and not lock.read_text().strip():
                lock.unlink()  # DVC writes it in two steps
            project.must("dvc", "repro")
            published.add((project.root / "artifacts/model/SHA256SUMS").read_bytes())
            assert reader.poll() is None, reader.communicate()[0]
    finally:
        stop.touch()
        said, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0, said
    assert int(said) > 20
    assert len(published) > 1
