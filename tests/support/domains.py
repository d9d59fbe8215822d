"""Two domains: of drawn features, with a head of the first; and of photographs, under another light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.adapting.methods import Domains
from headstart.heads import ridge
from headstart.heads.contract import Fitted, Kind
from headstart.heads.kinds import KINDS
from tests.support.heads import clusters, path, source_of
from tests.support.projects import write_photographs

N_CLASSES = 3


def fit(rows: np.ndarray, labels: np.ndarray, kind: Kind = ridge) -> Fitted:
    """Return a head of three classes of a kind."""
    return path(kind, source_of(rows.astype(np.float32), labels), n_classes=N_CLASSES)[-1]


def drawn(n: int, seed: int, noise: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Return features float64 [n, 12] and labels."""
    rows, labels = clusters(n, N_CLASSES, noise=noise, seed=seed)
    return rows.astype(np.float64), labels


def shifted(rows: np.ndarray) -> np.ndarray:
    """Return the rows, their features scaled and moved so far that a head no longer knows them."""
    random = np.random.default_rng(5)
    n_features = rows.shape[1]
    spread = rows.std(0)
    return np.asarray(rows * random.uniform(0.3, 2.0, n_features) + 3 * spread * random.normal(size=n_features))


def domains(n: int = 240, n_target: int = 150, kind: str = "ridge") -> tuple[Domains, np.ndarray]:
    """Return a source and a shifted target of other images, and the labels of the latter."""
    (source, labels), (target, truth) = drawn(n, 0), drawn(n_target, 1)

    def fitting(rows: np.ndarray, given: np.ndarray) -> Fitted:
        return fit(rows, given, KINDS[kind])

    return Domains(source, labels, shifted(target), fitting(source, labels), fitting), truth


def alike(n: int = 240, n_target: int = 150, seed: int = 1) -> tuple[Domains, np.ndarray]:
    """Return a source, and a target of other images from the same place."""
    of, _ = domains(n)
    target, truth = drawn(n_target, seed)
    return replace(of, target=target), truth


def mixed(truth: np.ndarray, n_rare: int) -> np.ndarray:
    """Return the rows that stay where all classes but the first have `n_rare` images."""
    return np.sort(np.concatenate([np.flatnonzero(truth == label)[: n_rare if label else None] for label in range(3)]))


def accuracy(head: Fitted, rows: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows that are named correctly."""
    return float((head.scores(rows).argmax(1) == labels).mean())


def other_light(folder: Path, n_images: int) -> None:
    """Write pictures of both classes under red light, in which the head takes one for the other."""
    write_photographs(folder, n_images, first=500)
    for file in folder.rglob("*.jpg"):
        pixels = np.asarray(Image.open(file)).astype(float)
        Image.fromarray(np.clip(pixels * 0.4 + (150, 0, 0), 0, 255).astype(np.uint8)).save(file, quality=95)


def manifest(root: Path, labels: Mapping[str, str | None]) -> None:
    """Name the pictures in `elsewhere`, with the label that stands for their own; None: with none."""
    files = sorted((root / "elsewhere").rglob("*.jpg"))
    rows = [f"{file.relative_to(root).as_posix()},{labels[file.parent.name] or ''}" for file in files]
    (root / "elsewhere.csv").write_text("\n".join(["path,label", *rows]) + "\n")
