"""Finished projects and a Prefect server, shared by the tests that run real commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.projects import Project, begun

if TYPE_CHECKING:
    from tests.support.orchestration import Api

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


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A Prefect server that ends with the tests."""
    from tests.support.orchestration import started_server

    with started_server(tmp_path_factory.mktemp("server")) as started:
        yield started
