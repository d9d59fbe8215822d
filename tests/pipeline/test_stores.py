"""Pixels and features within the pipeline: kept or not, killed, damaged, views, half precision, at URLs, pushed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.projects import Project, begun, write_photographs
from tests.support.server import Server

DOWNSTREAM = [(name,) for name in ("features", "head", "evaluation", "model")]


def downstream(project: Project) -> dict[str, str]:
    return {path: digest for path, digest in project.artefacts().items() if Path(path).parts[1:2] in DOWNSTREAM}


@pytest.mark.slow
def test_without_the_pixel_store_every_byte_downstream_is_the_same(project: Project) -> None:
    before = downstream(project)
    shutil.rmtree(project.cache)
    project.must("python", "-m", "tasks", "set", "transform.keep_pixels=false")
    said = project.must("dvc", "repro")
    assert "transform: transform.keep_pixels is false" in said
    assert "embed: 24 images computed, 0 reused" in said
    assert not list(project.cache.glob("rows/pixels-*"))
    assert downstream(project) == before
    write_photographs(project.root / "photos", 2, first=30)
    assert "embed: 4 images computed, 24 reused" in project.must("dvc", "repro")
    without = downstream(project)
    project.must("python", "-m", "tasks", "set", "transform.keep_pixels=true")
    said = project.must("dvc", "repro")
    assert "transform: 28 images computed, 0 reused" in said
    assert "embed: 0 images computed, 28 reused" in said
    assert downstream(project) == without


@pytest.mark.slow
def test_views_are_kept_trained_on_and_computed_once(project: Project) -> None:
    project.must("python", "-m", "tasks", "set", "embed.views=3")
    said = project.must("dvc", "repro")
    assert "embed: 0 images computed, 24 reused" in said  # the plain view
    n_trained = json.loads((project.root / "artifacts/head/head.json").read_text())["n_images"]
    assert f"embed: {n_trained} images computed, 0 reused" in said
    manifest = json.loads((project.root / "artifacts/features/views/manifest.json").read_text())
    levels = json.loads((project.root / "artifacts/features/embedding.json").read_text())["levels"]
    assert len(levels) > 1
    assert manifest["row_shape"] == [3, sum(level["width"] for level in levels)]
    assert manifest["n_rows"] == n_trained
    assert json.loads((project.root / "artifacts/head/head.json").read_text())["n_views"] == 3
    report = (project.root / "artifacts/report.html").read_text()
    assert "By random crops of 25% to 100% of the area and random flips: 3 views in addition to each image." in report
    assert report.count("an image and its variants") == 4
    once = project.artefacts()
    said = project.must("dvc", "repro", "--force", "--single-item", "embed")
    assert f"embed: 0 images computed, {n_trained} reused" in said
    assert project.artefacts() == once
    project.must("python", "-m", "tasks", "set", "embed.views=0")
    project.must("dvc", "repro", "embed")
    assert not (project.root / "artifacts/features/views").exists()


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param("embed.dtype=float16", marks=pytest.mark.slow),
        pytest.param("embed.engine=openvino", marks=pytest.mark.slow),
        pytest.param("embed.engine=torch", marks=pytest.mark.slow),
    ],
)
def test_other_engines_and_types_end_in_a_model_that_passes_its_gate(project: Project, setting: str) -> None:
    project.must("python", "-m", "tasks", "set", setting)
    said = project.must("dvc", "repro")
    assert "embed: 24 images computed, 0 reused" in said
    assert "export: model.onnx gives evaluate's labels" in said
    if "engine" in setting:
        assert f"{setting.partition('=')[2]} " in said
        assert "and onnxruntime agree on 4 images to" in said


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["transform", "embed"])
def test_a_stage_killed_in_the_middle_ends_in_the_same_bytes(project: Project, stage: str) -> None:
    before = project.artefacts()
    for wait_s in (0.7, 1.2, 1.5, 1.8):
        shutil.rmtree(project.cache)
        shutil.rmtree(project.root / "artifacts" / {"transform": "pixels", "embed": "features"}[stage])
        command = [str(project.root / ".venv/bin/python"), "-m", "tasks", stage]
        environment = {**os.environ, "HEADSTART_CACHE": str(project.cache)}
        process = subprocess.Popen(
            command, cwd=project.root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        project.must("python", "-m", "tasks", stage)
        assert project.artefacts() == before


def test_a_damaged_shard_of_features_is_never_read(project: Project) -> None:
    before = project.artefacts()
    victim = next((project.root / "artifacts/features/plain").glob("shard-*"))
    damage(victim)
    shutil.rmtree(project.cache / "results")  # so that features are read
    done = project.run("python", "-m", "tasks", "train_head")
    assert done.returncode == 1
    assert f"{victim.name} is damaged: its bytes have changed since they were written" in done.stdout
    assert "Run `dvc repro --force embed`" in done.stdout
    assert "Traceback" not in done.stdout
    project.must("dvc", "repro", "--force", "--single-item", "embed")
    project.must("python", "-m", "tasks", "train_head")
    assert project.artefacts() == before


def test_damaged_rows_of_the_cache_are_never_read_and_computed_again(project: Project) -> None:
    before = project.artefacts()
    for kind in ("pixels", "features"):
        (victim,) = project.cache.glob(f"rows/{kind}-*/*")
        damage(victim)
    shutil.rmtree(project.root / "artifacts/features")
    project.must("python", "-m", "tasks", "embed")
    assert project.artefacts() == before
    assert not victim.exists()
    assert "24 images computed, 0 reused" in project.must("python", "-m", "tasks", "embed")
    assert "0 images computed, 24 reused" in project.must("python", "-m", "tasks", "embed")
    assert project.artefacts() == before


def damage(file: Path) -> None:
    """Flip a bit in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.slow
def test_another_project_finds_what_the_first_has_computed(project: Project, tmp_path: Path) -> None:
    other = begun(tmp_path / "other", "split.seed=3")
    said = other.must("dvc", "repro", HEADSTART_CACHE=str(project.cache))
    assert said.count("0 images computed, 24 reused") == 2


@pytest.mark.slow
def test_what_does_not_fit_into_the_cache_is_made_where_it_is_needed(project: Project) -> None:
    before = downstream(project)
    shutil.rmtree(project.cache)
    project.must("python", "-m", "tasks", "set", "cache.max_gb=0.00002")  # 20 kB
    stages = ("transform", "embed", "train_head", "evaluate", "export", "publish")
    said = project.must("dvc", "repro", "--force", "--single-item", *stages)
    assert "transform: warning: pixels are not kept" in said
    assert "embed: warning: features are not kept in the cache: they take 0.0 GB, more than cache.max_gb" in said
    assert downstream(project) == before
    kept = sum(path.stat().st_size for path in project.cache.rglob("*") if path.is_file())
    assert kept <= 20_000


@pytest.mark.slow
def test_ctrl_c_leaves_what_was_there(project: Project) -> None:
    before = project.artefacts()
    write_photographs(project.root / "photos", 30, first=100)
    for stage in ("validate", "split", "transform"):
        project.must("python", "-m", "tasks", stage)
    command = [str(project.root / ".venv/bin/python"), "-m", "tasks", "embed"]
    environment = {**os.environ, "HEADSTART_CACHE": str(project.cache)}
    process = subprocess.Popen(
        command, cwd=project.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    time.sleep(1.6)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=10)
    assert "Traceback" not in said
    if process.returncode:  # it may have been quicker
        assert process.returncode in (130, -signal.SIGINT)
    for path in (project.root / "photos").rglob("1??.jpg"):
        path.unlink()
    project.must("dvc", "repro")
    assert project.artefacts() == before


@pytest.mark.slow
def test_dvc_push_sends_the_shards_that_changed(project: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    project.must("dvc", "remote", "add", "--default", "store", str(remote))
    project.must("dvc", "push")
    before = {path.relative_to(remote) for path in remote.rglob("*") if path.is_file()}
    shard = next((project.root / "artifacts/features/plain").glob("shard-*"))
    assert any(path.stat().st_size == shard.stat().st_size for path in remote.rglob("*") if path.is_file())
    pixels = next(project.cache.glob("rows/pixels-*/*"))
    assert not any(path.stat().st_size == pixels.stat().st_size for path in remote.rglob("*") if path.is_file())
    project.must("python", "-m", "tasks", "set", "train_head.strengths=[1.0]")
    project.must("dvc", "repro")
    project.must("dvc", "push")
    sent = {path.relative_to(remote) for path in remote.rglob("*") if path.is_file()} - before
    assert sent
    assert not any((remote / path).stat().st_size == shard.stat().st_size for path in sent)


@pytest.mark.slow
def test_images_and_stores_at_urls_give_the_same_bytes(project: Project, server: Server) -> None:
    before = downstream(project)
    rows = ["path,label"]
    for path in sorted((project.root / "photos").rglob("*.jpg")):
        name = f"/{path.parent.name}/{path.name}"
        server.files[name] = path.read_bytes()
        rows.append(f"{server.url}{name},{path.parent.name}")
    (project.root / "urls.csv").write_text("\n".join(rows) + "\n")
    store = project.root.parent / "store"
    project.must(
        "python", "-m", "tasks", "set", "data.root=urls.csv", "data.allow_outside=true", f"cluster.store=file://{store}"
    )
    said = project.must("dvc", "repro")
    assert "'urls.csv' is read as manifest: 24 image files" in said
    assert "embed: 24 images computed, 0 reused" in said
    assert sorted(path.name for path in store.iterdir()) == ["features", "pixels"]
    assert not list((project.root / "artifacts").rglob("shard-*"))
    after = downstream(project)
    same = [name for name in before if "head.onnx" in name or "metrics.json" in name]
    assert len(same) == 2
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    server.files.popitem()
    (project.root / "urls.csv").write_text("\n".join(rows) + "\n\n")
    done = project.run("python", "-m", "tasks", "validate")
    assert "1 file is set aside" in done.stdout


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(project: Project) -> None:
    before = project.artefacts()
    project.must("python", "-m", "tasks", "set", "cluster.address=127.0.0.1:9")
    shutil.rmtree(project.root / "artifacts" / "features")
    done = project.run("python", "-m", "tasks", "embed")
    assert done.returncode == 1
    assert "cluster.address is '127.0.0.1:9', but no Dask scheduler answers there" in done.stdout
    assert "Traceback" not in done.stdout
    assert {name for name in before if "features" not in name} <= set(project.artefacts())
