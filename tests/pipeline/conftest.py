"""A Prefect server, shared by the tests that run real commands; tests/conftest.py has the finished projects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.orchestration import Api


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A Prefect server that ends with the tests."""
    from tests.support.orchestration import started_server

    with started_server(tmp_path_factory.mktemp("server")) as started:
        yield started
