from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from headstart.base import files
from headstart.base.errors import CheckError


def test_a_failed_write_leaves_the_earlier_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})
    with pytest.raises(RuntimeError), files.replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert json.loads(path.read_text()) == {"n": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_folder_leaves_the_earlier_one_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with files.replacing_folder(folder) as beside:
        (beside / "a").write_text("old")
    with pytest.raises(RuntimeError), files.replacing_folder(folder) as beside:
        (beside / "a").write_text("new")
        raise RuntimeError
    assert (folder / "a").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_a_replaced_folder_keeps_nothing_of_the_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("old", "new"):
        with files.replacing_folder(folder) as beside:
            (beside / name).write_text(name)
    assert [item.name for item in folder.iterdir()] == ["new"]


def test_leftovers_of_a_killed_run_do_not_stop_the_next(tmp_path: Path) -> None:
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.old").mkdir()
    with files.replacing_folder(tmp_path / "model") as beside:
        (beside / "a").write_text("a")
    assert [item.name for item in tmp_path.iterdir()] == ["model"]


def test_json_refuses_nan_and_keeps_the_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": math.nan})
    files.write_json(tmp_path / "a.json", {"z": 1, "a": "é"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "z": 1,\n  "a": "é"\n}\n'.encode()


def test_a_missing_or_broken_table_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(CheckError, match="The stage split makes it"):
        files.read_csv(path, "split")
    path.write_bytes(b"a,b\n1,2,3\n\xff")
    with pytest.raises(CheckError, match="dvc repro --force split"):
        files.read_csv(path, "split")


def test_safetensors_come_back_as_they_went(tmp_path: Path) -> None:
    arrays = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4).T, "bias": np.ones(3, np.float32)}
    files.write_safetensors(tmp_path / "a.safetensors", arrays)
    found = load_file(tmp_path / "a.safetensors")
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


def test_a_single_number_keeps_having_no_dimension(tmp_path: Path) -> None:
    files.write_safetensors(tmp_path / "a.safetensors", {"n": np.array(7), "matrix": np.eye(3)[:, ::2]})
    found = load_file(tmp_path / "a.safetensors")
    assert found["n"].shape == ()
    assert np.array_equal(found["matrix"], np.eye(3)[:, ::2])


def test_every_file_is_as_open_to_others_as_the_system_says(tmp_path: Path) -> None:
    files.write_safetensors(tmp_path / "a.safetensors", {"a": np.zeros(3)})
    files.write_text(tmp_path / "b.txt", "b")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
