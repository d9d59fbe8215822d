"""Folders between stages carry the digests of their files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headstart.base import seals
from headstart.base.errors import CheckError
from headstart.base.records import Sealed

DAG = """
stages:
  first:
    cmd: a
    outs:
      - artifacts/made
      - data/images:
          cache: false
  second:
    cmd: b
    deps: [artifacts/made]
    outs: [artifacts/model]
"""
FILES = {"a.json": b"{}\n", "b/c.csv": b"x\n1\n", "d.onnx": bytes(range(256))}


class Small(Sealed):
    """A record."""

    name: str
    count: int


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(DAG)
    for name, data in FILES.items():
        file = tmp_path / "artifacts" / "made" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (tmp_path / "data" / "images").mkdir(parents=True)
    seals.write(tmp_path, "first")
    return tmp_path


def test_what_a_stage_wrote_passes_and_other_tools_check_it_too(root: Path) -> None:
    seals.check(root, "second")
    subprocess.run(["sha256sum", "--check", "--quiet", seals.SUMS], cwd=root / "artifacts" / "made", check=True)
    assert not (root / "data" / "images" / seals.SUMS).exists()


def test_every_flipped_bit_of_every_file_is_noticed(root: Path) -> None:
    for file in sorted(path for path in (root / "artifacts" / "made").rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for bit in range(0, len(whole) * 8, 5):
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            with pytest.raises(CheckError, match=r"dvc repro --force first"):
                seals.check(root, "second")
        file.write_bytes(whole)
    seals.check(root, "second")


def test_a_list_that_was_emptied_or_cut_at_any_line_is_noticed(root: Path) -> None:
    sums = root / "artifacts" / "made" / seals.SUMS
    lines = sums.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        for some in (lines[:kept], lines[kept + 1 :], [*lines[:kept], *lines[kept + 1 :]]):
            sums.write_bytes(b"".join(some))
            with pytest.raises(CheckError, match="is not as first wrote it"):
                seals.check(root, "second")


def test_a_missing_file_is_noticed_and_one_that_was_laid_beside_is_not_in_the_way(root: Path) -> None:
    (root / "artifacts" / "made" / ".DS_Store").write_bytes(b"x")
    seals.check(root, "second")
    (root / "artifacts" / "made" / "a.json").unlink()
    with pytest.raises(CheckError, match="or a file that it lists is missing"):
        seals.check(root, "second")


def test_folders_of_earlier_versions_are_taken_as_they_are(root: Path) -> None:
    (root / "artifacts" / "made" / seals.SUMS).unlink()
    (root / "artifacts" / "made" / "a.json").write_bytes(b"[]")
    seals.check(root, "second")


def test_a_model_keeps_the_digests_that_export_wrote(root: Path) -> None:
    model = root / "artifacts" / "model"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"x")
    (model / "SHA256SUMS").write_text(f"{'0' * 64}  model.onnx\n")
    seals.write(root, "second")
    assert sorted(path.name for path in model.iterdir()) == ["SHA256SUMS", "model.onnx"]


def test_a_sealed_record_comes_back_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    Small(name="café", count=3).write(file)
    whole = file.read_bytes()
    assert Small.read(file, "stage").model_copy(update={"sha256": ""}) == Small(name="café", count=3)
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        with pytest.raises(CheckError, match="dvc repro --force stage"):
            Small.read(file, "stage")


def test_a_record_without_its_digest_is_of_an_earlier_version(tmp_path: Path) -> None:
    file = tmp_path / "small.json"
    file.write_text('{"name": "a", "count": 1}')
    assert Small.read(file, "stage").count == 1


def test_what_a_killed_run_has_left_half_written_is_removed_before_the_next_one(root: Path) -> None:
    beside = root / "artifacts"
    (beside / ".made.partial").mkdir()
    (beside / ".made.0f0f.partial").write_bytes(b"x")
    (beside / ".other.partial").write_bytes(b"x")
    seals.sweep(root, "first")
    assert sorted(path.name for path in beside.iterdir()) == [".other.partial", "made"]
