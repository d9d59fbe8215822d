"""What model hubs read at the top of a model card: YAML between two lines of three dashes."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from headstart.base.licences import NONE, UNKNOWN
from headstart.handover.folder import ModelRecord

_LINE = "---\n"
_TASK = "image-classification"
# Licences of weights that hubs know by a name of their own, which is SPDX's in small letters.
_KNOWN = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", UNKNOWN)


def with_metadata(card: str, record: ModelRecord, dataset: str) -> str:
    """Return the card with the metadata of the model before it. `dataset`: the name of its data."""
    return f"{_LINE}{_metadata(record, dataset).to_yaml()}\n{_LINE}\n{card}"


def body(card: str) -> str:
    """Return a card without its metadata; older ones have none."""
    return card.split(_LINE, 2)[2].lstrip() if card.startswith(_LINE) else card


def _metadata(record: ModelRecord, dataset: str) -> ModelCardData:
    test = record.test
    kind, _, on_hub = record.weights.partition(": ")
    figures = {"accuracy": test.accuracy, "f1": test.macro_f1}
    return ModelCardData(
        base_model=on_hub.partition("@")[0] if kind in ("timm", "hf-hub") and "/" in on_hub else None,
        library_name="onnx",
        pipeline_tag=_TASK,
        tags=[_TASK, "onnx", "headstart"],
        metrics=list(figures),
        model_name=dataset,
        eval_results=[
            EvalResult(
                task_type=_TASK,
                dataset_type=dataset,
                dataset_name=f"{dataset}, held-out images",
                metric_type=name,
                metric_value=round(value, 6),
                metric_name={"f1": "macro F1"}.get(name, name),
            )
            for name, value in figures.items()
        ],
        **_licence(record.licence),
    )


def _licence(name: str) -> dict[str, Any]:
    """Return the licence of the weights, under which alone the model that holds them can be handed on."""
    if name == NONE:
        return {}
    return {"license": name.lower()} if name in _KNOWN else {"license": "other", "license_name": name}
