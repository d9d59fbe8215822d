from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from headstart.tuning import checkpoint

TENSORS = {"a/b": torch.arange(6.0).reshape(2, 3).T, "step": torch.tensor(3.0), "n": torch.tensor(7)}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "checkpoint.safetensors"
    checkpoint.save(path, TENSORS, {"made_for": "x", "loss": 0.1 + 0.2, "history": [[1, None]]})
    found = checkpoint.load(path, "x")
    assert found is not None
    assert all(torch.equal(found[0][name], tensor) for name, tensor in TENSORS.items())
    assert found[1] == {"made_for": "x", "loss": 0.1 + 0.2, "history": [[1, None]]}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_state_is_plain_json_in_the_header(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", TENSORS, {"made_for": "x"})
    with safe_open(tmp_path / "c", framework="np") as file:
        assert json.loads(file.metadata()["headstart"]) == {"made_for": "x"}


def test_another_run_s_checkpoint_is_not_taken(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", TENSORS, {"made_for": "x"})
    assert checkpoint.load(tmp_path / "c", "y") is None
    assert checkpoint.load(tmp_path / "none", "x") is None


@pytest.mark.parametrize("n_bytes", [0, 5, 200])
def test_a_torn_file_is_not_taken(n_bytes: int, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", TENSORS, {"made_for": "x"})
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:n_bytes])
    assert checkpoint.load(tmp_path / "c", "x") is None
