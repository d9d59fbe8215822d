"""reference.json in a model's folder: what the model said to its held-out images, which new ones are compared with.

It holds counts, shares and a sample of the model's outputs, and no image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.base.errors import CheckError
from headstart.base.files import write_text
from headstart.monitoring import scores
from headstart.onnx.model_folder import REFERENCE

_FORMAT = 1
DECIMALS = 3  # of the sample
_MAX_ROWS = 500  # of it
_MAX_COLUMNS = 16


@dataclass(frozen=True)
class Reference:
    """What the model said to N held-out images."""

    model_sha256: str
    n_images: int
    counts: dict[str, np.ndarray]  # score -> int64 [L], images by the level of their score
    accuracy: float
    confidence: float  # mean of the highest probability
    confidence_variance: float
    confidence_deciles: list[float]  # 10 % to 90 % of the highest probability
    abstaining: float  # share
    novel: float  # share above NOVEL_ABOVE
    shares: np.ndarray  # float64 [C], mean probability of each class
    rows: np.ndarray  # float64 [at most 500, F], their `scores.signature`, a sample


def of(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray, abstain_below: float, novel_above: float, model_sha256: str
) -> Reference:
    """Return the reference of held-out images: `probabilities` [N, C], `novelty` [N], and their labels int [N]."""
    probabilities = outputs["probabilities"].astype(np.float64)
    highest = probabilities.max(1)
    n_images, n_classes = probabilities.shape
    found = scores.levels(outputs)
    some = np.sort(np.random.default_rng(0).permutation(n_images)[:_MAX_ROWS])
    return Reference(
        model_sha256=model_sha256,
        n_images=n_images,
        counts={
            name: np.bincount(found[name], minlength=scores.n_levels(name, n_classes)).astype(np.int64)
            for name in scores.SCORES
        },
        accuracy=float((probabilities.argmax(1) == labels).mean()),
        confidence=float(highest.mean()),
        confidence_variance=float(highest.var()),
        confidence_deciles=[float(value) for value in np.quantile(highest, np.linspace(0.1, 0.9, 9))],
        abstaining=float((highest < abstain_below).mean()),
        novel=float((outputs["novelty"] > novel_above).mean()),
        shares=probabilities.mean(0),
        rows=scores.signature(outputs, _MAX_COLUMNS)[some],
    )


def write(folder: Path, found: Reference) -> None:
    """Write reference.json; the same reference always gives the same bytes."""
    value: dict[str, Any] = {
        "format": _FORMAT,
        "model_sha256": found.model_sha256,
        "n_images": found.n_images,
        "counts": {name: sparse(found.counts[name]) for name in scores.SCORES},
        **{
            name: round(getattr(found, name), 6)
            for name in ("accuracy", "confidence", "confidence_variance", "abstaining", "novel")
        },
        "confidence_deciles": [round(each, 6) for each in found.confidence_deciles],
        "shares": [round(float(each), 6) for each in found.shares],
        "rows": [[round(float(each), DECIMALS) for each in row] for row in found.rows],
    }
    write_text(folder / REFERENCE, json.dumps(value) + "\n")


def read(model: Path, model_sha256: str) -> Reference:
    """Return the reference beside a model.onnx of this digest; CheckError if there is none for it."""
    file = model.parent / REFERENCE
    try:
        value = json.loads(file.read_bytes())
        counts = {name: dense(value["counts"][name]) for name in scores.SCORES}
        names = ("accuracy", "confidence", "confidence_variance", "abstaining", "novel")
        found = Reference(
            model_sha256=str(value["model_sha256"]),
            n_images=int(value["n_images"]),
            counts=counts,
            **{name: float(value[name]) for name in names},
            confidence_deciles=[float(each) for each in value["confidence_deciles"]],
            shares=np.array(value["shares"], np.float64),
            rows=np.array(value["rows"], np.float64),
        )
        is_whole = all(each.sum() == found.n_images and each.min() >= 0 for each in counts.values())
        if value["format"] != _FORMAT or not is_whole or found.rows.ndim != 2 or not found.n_images:
            raise ValueError
    except OSError:
        raise CheckError(
            f"{file} does not exist, and what is normal for this model is not known without it. A model folder of a"
            " headstart that has `monitor` was expected. Export the model again: `headstart run`."
        ) from None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise CheckError(
            f"{file} is damaged. What `export` writes was expected. Take the model's folder again."
        ) from None
    if found.model_sha256 != model_sha256:
        raise CheckError(
            f"{file} is of another model than {model} ({found.model_sha256[:12]}, not {model_sha256[:12]}). The"
            " model.onnx that it was exported with was expected."
        )
    return found


def sparse(counts: np.ndarray) -> dict[str, Any]:
    """Return counts [L] as plain values, without those that are 0."""
    there = np.flatnonzero(counts)
    return {"n_levels": len(counts), "levels": there.tolist(), "images": counts[there].tolist()}


def dense(value: Mapping[str, Any]) -> np.ndarray:
    """Return counts [L] as `sparse` told them; ValueError, KeyError or TypeError where it is something else."""
    counts = np.zeros(int(value["n_levels"]), np.int64)
    there, images = (np.array(value[name], np.int64) for name in ("levels", "images"))
    if there.shape != images.shape or there.ndim != 1 or not all(0 <= each < len(counts) for each in there):
        raise ValueError
    counts[there] = images
    return counts
