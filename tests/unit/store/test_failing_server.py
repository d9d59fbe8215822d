"""Shared storage behind a server that fails: it is told in a line, and one more run ends in the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from headstart.base.errors import ParamError, UnreachableError
from headstart.base.files import Place, located
from headstart.store import arrays
from headstart.store.shards import Contract
from headstart.store.workers import workers

CONTRACT = Contract("f" * 64, (3,), "float32")
IDS = [sha256(bytes([number])).hexdigest() for number in range(12)]


class ServiceError(Exception):
    """What libraries of object stores raise is of classes of their own."""


class Flaky(LocalFileSystem):
    """A folder as a server gives it, which fails at one of its requests."""

    protocol = "flaky"
    cachable = False
    n_requests, fails_at = 0, -1
    error: Exception = OSError("503 Service Unavailable")

    @classmethod
    def requested(cls) -> None:
        cls.n_requests += 1
        if cls.n_requests == cls.fails_at:
            raise cls.error

    def _open(self, *arguments: Any, **options: Any) -> Any:
        self.requested()
        return super()._open(*arguments, **options)

    isdir = fsspec.AbstractFileSystem.isdir  # which takes an OSError for "no"

    def info(self, *arguments: Any, **options: Any) -> Any:
        self.requested()
        return super().info(*arguments, **options)

    def ls(self, *arguments: Any, **options: Any) -> Any:
        self.requested()
        return super().ls(*arguments, **options)

    def rm_file(self, *arguments: Any, **options: Any) -> Any:
        self.requested()
        return super().rm_file(*arguments, **options)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(arrays, "ROWS_PER_SHARD", 4)
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    yield
    Flaky.n_requests, Flaky.fails_at = 0, -1


def rows_of(images: Mapping[str, str], advance: arrays.Advance) -> np.ndarray:
    return np.array([[int(each[:5], 16)] * 3 for each in images], np.float32)


def built(place: Place, ids: list[str]) -> int:
    Flaky.n_requests = 0
    with workers(None) as pool:
        return arrays.build(place, dict.fromkeys(ids, ""), CONTRACT, rows_of, pool)


def place_of(folder: Path) -> Place:
    (folder / "shared").mkdir(parents=True)
    (folder / "store").mkdir()
    return Place(folder / "store", located(f"flaky://{folder}/shared", folder))


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("error", [OSError("503 Service Unavailable"), ServiceError("slow down"), TimeoutError()])
def test_a_request_that_fails_while_a_store_is_built_is_told_and_the_next_run_ends_in_the_same_bytes(
    tmp_path: Path, error: Exception
) -> None:
    whole = place_of(tmp_path / "whole")
    built(whole, IDS[:9])
    built(whole, IDS)
    n_requests, expected = Flaky.n_requests, bytes_of(tmp_path / "whole")
    assert n_requests > 6
    Flaky.error = error
    for number in range(1, n_requests + 1):
        folder = tmp_path / str(number)
        Flaky.fails_at = -1
        place = place_of(folder)
        built(place, IDS[:9])
        Flaky.fails_at = number
        with pytest.raises(
            UnreachableError, match=r"flaky://.*shared.* could not be (read|written|listed|removed)"
        ) as told:
            built(place, IDS)
        assert "cluster.store" in str(told.value)
        Flaky.fails_at = -1
        built(place, IDS)
        assert bytes_of(folder) == expected


@pytest.mark.parametrize("damage", [b"", b"cut", b'{"n_rows": 1}' * 9])
def test_damage_is_no_failing_server_and_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    place = place_of(tmp_path)
    built(place, IDS)
    expected = bytes_of(tmp_path)
    (tmp_path / "shared" / sorted(path.name for path in (tmp_path / "shared").iterdir())[0]).write_bytes(damage)
    assert 0 < built(place, IDS) < len(IDS)
    assert bytes_of(tmp_path) == expected
    assert built(place, IDS) == 0


def test_a_package_that_lacks_is_told_and_not_tried_again(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    Flaky.fails_at, Flaky.error = 1, ImportError("Install s3fs to access S3")
    with pytest.raises(ParamError, match=r"Install s3fs to access S3\. Install that package, or name another place"):
        built(place, IDS)


def test_a_request_that_fails_while_a_store_is_read_is_told_and_is_no_damage(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    built(place, IDS)
    Flaky.n_requests, Flaky.fails_at, Flaky.error = 0, 1, ServiceError("slow down")
    with pytest.raises(UnreachableError, match=r"could not be read \(ServiceError: slow down\)"):
        arrays.Store(place, "embed").read(IDS)
    assert np.array_equal(arrays.Store(place, "embed").read(IDS), rows_of(dict.fromkeys(IDS, ""), lambda n: None))
