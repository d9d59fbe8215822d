"""A ranking of drawn backbones."""

from __future__ import annotations

from typing import Any

from headstart.ranking.folder import Entry, RankingRecord


def entry(label: str, accuracy: float, milliseconds: float, **changes: Any) -> Entry:
    usual: dict[str, Any] = {
        "label": label,
        "name": f"timm/{label}",
        "weights": "default",
        "licence": "Apache-2.0",
        "obstacles": [],
        "input_px": 224,
        "n_features": 1280,
        "megabytes": 4 * milliseconds,
        "milliseconds": milliseconds,
        "n_images": 400,
        "accuracy": accuracy,
        "accuracy_low": accuracy - 0.03,
        "accuracy_high": min(1.0, accuracy + 0.02),
        "log_loss": 1 - accuracy,
        "log_loss_se": 0.01,
        "head": "ridge on last",
        "behind": 0.95 - accuracy,
        "behind_se": 0.01,
        "is_out": False,
        "knn": accuracy - 0.02,
        "logme": 0.4,
        "h_score": 3.0,
    }
    return Entry.model_validate({**usual, **changes})


def ranking(*entries: Entry, **changes: Any) -> RankingRecord:
    usual: dict[str, Any] = {
        "entries": list(entries) or ENTRIES,
        "winner": "middling",
        "criterion": "log_loss",
        "parts": [100, 200, 400],
        "n_classes": 4,
        "processor": "a processor",
        "runtime": "onnxruntime 1.31.1",
        "threads": 1,
    }
    return RankingRecord.model_validate({**usual, **changes})


ENTRIES = [
    entry("barred", 0.97, 30.0, licence="unknown", obstacles=["its licence is unknown"]),
    entry("middling", 0.95, 10.0, behind=None, behind_se=None),
    entry("slower", 0.94, 20.0),
    entry("quick", 0.91, 5.0),
    entry("hopeless", 0.6, 40.0, n_images=100, is_out=True, behind=0.4, behind_se=0.05),
]
