"""A finished project, shared by the trials of faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.projects import Project, begun


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro`. Not to be changed: take `project`."""
    project = begun(tmp_path_factory.mktemp("base") / "project")
    project.must("dvc", "repro")
    return project


@pytest.fixture
def project(base: Project, tmp_path: Path) -> Project:
    """A finished project of its own."""
    return base.copy(tmp_path / "project")
