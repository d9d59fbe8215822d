"""Exports a trained network as ONNX pieces, checks them against PyTorch, and records how it was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.special import softmax

from headstart.backbones.graph import backbone_graph, trace
from headstart.base import label_sets
from headstart.base.errors import CheckError
from headstart.base.files import are_as_promised, replacing_folder, sums, write_safetensors
from headstart.base.progress import say, show_table
from headstart.heads.calibration import losses
from headstart.heads.graph import head_graph
from headstart.heads.linear import Linear
from headstart.onnx import finetune_folder, runtime
from headstart.onnx.finetune_folder import PhaseRecord, TunedRecord
from headstart.onnx.pieces import to_bytes
from headstart.tuning.history import Epoch
from headstart.tuning.judge import log_loss_and_temperature, novelty_of

if TYPE_CHECKING:
    from headstart.tuning.loop import Tuned
    from headstart.tuning.plan import Plan

MAX_RELATIVE_DIFFERENCE = 1e-3  # of the features' root mean square, between onnxruntime and PyTorch
_GATE_IMAGES = 64


def is_there(folder: Path, made_for: str) -> bool:
    """Return whether `folder` holds an intact network from the same inputs and parameters, and of the same versions."""
    try:
        there = finetune_folder.read(folder)
    except CheckError:
        return False
    return there is not None and there.made_for == made_for and are_as_promised(folder, there.files)


def write(plan: Plan, tuned: Tuned, folder: Path) -> TunedRecord:
    """Export the network as ONNX pieces and write everything; CheckError if their features differ from PyTorch's."""
    import torch

    network, val = plan.network, plan.val
    say("exporting the tuned backbone")
    network.eval()
    module = network.extractor.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    program = trace(module, network.preprocessing)
    graph = to_bytes(backbone_graph(program))
    session = runtime.session(graph)
    few = val[:_GATE_IMAGES]
    shown = plan.views.source(few.where)
    with torch.inference_mode():
        expected = np.asarray(program.module()(torch.from_numpy(shown)))
    apart = checked_parity(session.run(None, {"pixels": shown})[0], expected)
    say(f"onnxruntime and PyTorch agree on {len(few)} validation images to {apart:.1e}")
    weight = network.head.weight.detach().cpu().numpy().T / tuned.temperature
    bias = network.head.bias.detach().cpu().numpy() / tuned.temperature
    with replacing_folder(folder) as beside:
        (beside / finetune_folder.BACKBONE).write_bytes(graph)
        scale = novelty_of(session, plan.views.source, plan.train, val, plan.recipe)
        (beside / finetune_folder.HEAD).write_bytes(to_bytes(head_graph(Linear(weight, bias + plan.shift), scale)))
        write_safetensors(beside / finetune_folder.MODEL, _tensors(plan))
        history = pl.DataFrame(tuned.history, schema=Epoch._fields, orient="row")
        finetune_folder.write_tables(beside, history, _validation(plan, tuned))
        record = _record(plan, tuned, sums(beside))
        finetune_folder.write(beside, record)
    show_table("finetune-epochs", history.to_dicts(), "Training by epoch; validation decides")
    return record


def checked_parity(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the difference of onnxruntime's features [N, D] from PyTorch's; CheckError if it is too large."""
    apart = runtime.difference(found, expected).relative
    if not apart <= MAX_RELATIVE_DIFFERENCE:
        raise CheckError(
            f"onnxruntime's features of the tuned backbone differ from PyTorch's by {apart:.1e} of their size on"
            f" {len(found)} validation images. At most {MAX_RELATIVE_DIFFERENCE:.0e} was expected. Nothing was written;"
            " please report this if it happens again."
        )
    return apart


def _tensors(plan: Plan) -> dict[str, np.ndarray]:
    """Return the tensors for PyTorch: `backbone.*`, with torchvision's or timm's names, and `head.*`."""
    head = plan.network.head.state_dict()
    return {f"backbone.{name}": tensor.numpy() for name, tensor in plan.network.backbone.state_dict().items()} | {
        f"head.{name}": tensor.cpu().numpy() for name, tensor in head.items()
    }


def _validation(plan: Plan, tuned: Tuned) -> pl.DataFrame:
    """Return `tables.VALIDATION`: both candidates on the validation images."""
    labels, frozen = plan.val.labels, plan.frozen_logits
    _, temperature = log_loss_and_temperature(frozen, labels)
    shipped = tuned.val_logits / tuned.temperature + plan.shift
    probabilities = softmax(shipped, axis=1).astype(np.float32)
    return pl.DataFrame(
        {
            "image_id": list(plan.val.image_ids),
            "label": [plan.classes[label] for label in labels],
            "frozen_log_loss": losses(frozen / temperature, labels),
            "tuned_log_loss": losses(tuned.val_logits / tuned.temperature, labels),
            "frozen_correct": (frozen / temperature + plan.shift).argmax(1) == labels,
            "tuned_correct": shipped.argmax(1) == labels,
            "tuned_probability": probabilities.max(1),
            "tuned_mass_above": label_sets.mass_above(probabilities)[np.arange(len(labels)), labels],
        }
    )


def _record(plan: Plan, tuned: Tuned, files: dict[str, str]) -> TunedRecord:
    frozen_loss, _ = log_loss_and_temperature(plan.frozen_logits, plan.val.labels)
    return TunedRecord(
        best_epoch=tuned.best.epoch,
        n_epochs=tuned.history[-1].epoch,
        stopped_early=tuned.stopped_early,
        temperature=round(tuned.temperature, 6),
        calibration=tuned.calibration.record,
        val_log_loss=round(tuned.best.val_log_loss, 6),
        val_accuracy=round(tuned.best.val_accuracy, 6),
        frozen_val_log_loss=round(frozen_loss, 6),
        frozen_val_accuracy=round(float((plan.frozen_logits.argmax(1) == plan.val.labels).mean()), 6),
        n_train=len(plan.train),
        n_val=len(plan.val),
        precision=plan.recipe.precision,
        phases=[PhaseRecord(**phase._asdict()) for phase in plan.recipe.phases],
        groups=[group.name for group in plan.network.groups],
        made_for=plan.recipe.made_for,
        files=files,
    )
