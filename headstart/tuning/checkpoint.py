"""Checkpoints of a training run: named tensors as safetensors, other state as JSON in the same file's header.

A checkpoint is one file, so one rename replaces all of it. Nothing in it is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.base.files import replacing

if TYPE_CHECKING:
    import torch

_STATE = "headstart"


def save(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write the tensors, and the state as JSON; the earlier file stays until the new one is complete."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with replacing(path) as beside:
        save_file(whole, beside, {_STATE: json.dumps(state)})


def load(path: Path, made_for: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return what `save` was given, or None if there is no readable file with the same `made_for`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[_STATE])
            if state["made_for"] != made_for:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}, state  # noqa: SIM118 no dict
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
