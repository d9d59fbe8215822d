"""The store's jobs on a real Dask scheduler and real worker processes."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from headstart.backbones.graph import backbone_graph, trace
from headstart.base.errors import CheckError, DataError, UnreachableError
from headstart.base.files import Place, sha256_of
from headstart.embedding import engines, pixels
from headstart.embedding.compute import Embedding
from headstart.onnx import pieces
from headstart.onnx.resize import resize_graph
from headstart.store import arrays
from headstart.store import workers as places
from headstart.store.workers import workers
from tests.support.cluster import Cluster
from tests.support.images import encoded, photograph

N_IMAGES = 40


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path / "dask.log")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of JPEGs, and image_id -> path."""
    folder, known = tmp_path_factory.mktemp("images"), {}
    for number in range(N_IMAGES):
        data = encoded(photograph(number, 200, 300), "JPEG")
        (folder / f"{number}.jpg").write_bytes(data)
        known[hashlib.sha256(data).hexdigest()] = f"{number}.jpg"
    return folder, known


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Slowly:
    """Resizing that takes a while, so that a worker can be killed in the middle. Picklable."""

    def __init__(self, resizing: pixels.Resizing, marks: Path) -> None:
        self.resizing, self.marks = resizing, marks

    def __call__(self, wanted: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
        (self.marks / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.5)
        return self.resizing.on_every_core(wanted, advance)


@pytest.fixture
def few_rows_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "ROWS_PER_SHARD", 4)


@pytest.mark.usefixtures("few_rows_a_shard")
def test_a_worker_killed_in_the_middle_changes_no_byte(
    dask: Cluster, images: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, known = images
    resizing = pixels.Resizing(pieces.to_bytes(resize_graph(64, "bicubic")), 64, folder)
    contract = pixels.contract(resizing)
    with workers(None) as pool:
        arrays.build(Place.of(tmp_path / "local"), known, contract, resizing.on_every_core, pool)
    marks = tmp_path / "marks"
    marks.mkdir()
    advanced: list[int] = []

    def kill_one() -> None:
        """Wait until both work, and kill one in the middle of a shard."""
        while len({path.name.partition("-")[0] for path in marks.iterdir()}) < 2:
            time.sleep(0.02)
        dask.workers[0].send_signal(signal.SIGKILL)

    killer = Thread(target=kill_one)
    killer.start()
    with workers(dask.address) as pool:
        assert not pool.in_process
        n_computed = arrays.build(
            Place.of(tmp_path / "remote"), known, contract, Slowly(resizing, marks), pool, advanced.append
        )
    killer.join()
    dask.workers[0].wait()
    assert n_computed == sum(advanced) == N_IMAGES
    by_worker = {path.name.partition("-")[0] for path in marks.iterdir()}
    assert by_worker == {str(worker.pid) for worker in dask.workers}
    assert len(list(marks.iterdir())) > arrays.n_shards(N_IMAGES, contract)  # the killed one's shard was made again
    assert bytes_of(tmp_path / "remote") == bytes_of(tmp_path / "local")


@pytest.mark.usefixtures("few_rows_a_shard")
def test_features_from_the_cluster_are_the_local_ones(
    dask: Cluster, images: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    import torch

    from headstart.backbones.preprocessing import Preprocessing

    folder, known = images
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    program = trace(module, Preprocessing(32, 0.5, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
    backbone = tmp_path / "backbone"
    backbone.mkdir()
    (backbone / "backbone.onnx").write_bytes(pieces.to_bytes(backbone_graph(program)))
    resizing = pixels.Resizing(pieces.to_bytes(resize_graph(64, "bicubic")), 64, folder)
    digest, kind = sha256_of(backbone / "backbone.onnx"), engines.kind("onnxruntime")
    embedding = Embedding(backbone, digest, kind, 4, resizing, "float16", None)
    contract = embedding.contract(pixels.contract(resizing), 8)
    for where, address in (("local", None), ("remote", dask.address)):
        with workers(address) as pool:
            assert arrays.build(Place.of(tmp_path / where), known, contract, embedding, pool) == N_IMAGES
    assert bytes_of(tmp_path / "remote") == bytes_of(tmp_path / "local")

    gone = {**known, "f" * 64: "gone.jpg"}
    with workers(dask.address) as pool, pytest.raises(DataError, match=r"gone\.jpg cannot be read"):
        arrays.build(Place.of(tmp_path / "remote"), gone, contract, embedding, pool)
    other = Embedding(backbone, "0" * 64, kind, 4, resizing, "float16", None)
    with (
        workers(dask.address) as pool,
        pytest.raises(CheckError, match="The file that backbone wrote, with SHA-256 0000"),
    ):
        arrays.build(Place.of(tmp_path / "other"), known, contract, other, pool)


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_ANSWER_S", 1)
    with (
        pytest.raises(
            UnreachableError, match=r"cluster\.address is '127\.0\.0\.1:9', but no Dask scheduler answers there"
        ),
        workers("127.0.0.1:9"),
    ):
        pass


def test_a_scheduler_without_workers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_ANSWER_S", 5)
    empty = Cluster(tmp_path / "dask.log", n_workers=0)
    try:
        with pytest.raises(UnreachableError, match="but its scheduler has no workers"), workers(empty.address):
            pass
    finally:
        empty.stop()
