"""A model whose normal images are many enough for drift to be found: those of the tests' projects are a handful."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from headstart.base.files import sha256_of
from headstart.handover.model import NOVEL_ABOVE, load
from headstart.monitoring import reference
from headstart.onnx.model_folder import MODEL
from tests.support.images import encoded
from tests.support.projects import Project, write_photographs


def watched_model(project: Project, folder: Path) -> Path:
    """Return a folder with the project's model.onnx and a reference.json of 120 photographs like its own."""
    folder.mkdir(parents=True)
    shutil.copy2(project.root / "artifacts" / "model" / MODEL, folder / MODEL)
    photographs = folder.with_name(f"{folder.name}-held-out")
    write_photographs(photographs, 60, first=5000)
    model = load(folder)
    files = sorted(photographs.rglob("*.jpg"))
    outputs = [model.outputs(model.decode(file.read_bytes())[None]) for file in files]
    together = {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}
    labels = np.array([model.classes.index(file.parent.name) for file in files])
    found = reference.of(together, labels, model.abstain_below, NOVEL_ABOVE, sha256_of(folder / MODEL))
    reference.write(folder, found)
    return folder


def write_noise(folder: Path, n_images: int, seed: int = 0) -> None:
    """Write images that are unlike any photograph."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for number in range(n_images):
        pixels = draw.integers(0, 256, (60, 80, 3)).astype(np.uint8)
        (folder / f"noise-{number:03d}.png").write_bytes(encoded(pixels))
