"""What several tests need: real photographs, images of every kind, folders of labelled images."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import settings

from tests.support.hub import Hub
from tests.support.images import HYMENOPTERA, encoded, photograph
from tests.support.projects import Project, begun
from tests.support.server import Server

# No example of these tests has a deadline, since machines differ, and none is remembered between runs.
settings.register_profile("headstart", deadline=None, database=None, derandomize=True)
settings.load_profile("headstart")

# A shell that starts the tests with & has them ignore SIGINT, and so all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing that tests compute enters the cache of whoever runs them."""
    os.environ["HEADSTART_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def hymenoptera() -> Path:
    """The folder of ants and bees, `train/` and `val/`."""
    if not (HYMENOPTERA / "train" / "ants").is_dir():
        pytest.skip(
            f"no photographs at {HYMENOPTERA}: fetch the hymenoptera data of PyTorch's transfer learning tutorial and"
            " set HEADSTART_TEST_PHOTOGRAPHS to its folder"
        )
    return HYMENOPTERA


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes `{"ants": 5, "bees": 5}` different images as class folders and gives their root."""

    def write(root: str = "photos", **n_images: int) -> Path:
        folder = tmp_path / root
        number = 0
        for label, count in n_images.items():
            (folder / label).mkdir(parents=True)
            for _ in range(count):
                (folder / label / f"{number:03d}.png").write_bytes(encoded(photograph(number)))
                number += 1
        return folder

    return write


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    thread = Thread(target=served.http.serve_forever, daemon=True)
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine in place of Hugging Face's, with a cache of its own and nobody logged in."""
    from huggingface_hub import constants

    served = Hub()
    thread = Thread(target=served.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


FIRST_RUN = "first-run.txt"  # beside the base project: what its run printed


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro`. Not to be changed: take `project`."""
    project = begun(tmp_path_factory.mktemp("base") / "project")
    (project.root.parent / FIRST_RUN).write_text(project.must("dvc", "repro"))
    return project


@pytest.fixture
def project(base: Project, tmp_path: Path) -> Project:
    """A finished project of its own."""
    return base.copy(tmp_path / "project")
