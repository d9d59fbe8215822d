"""The training history: one record per epoch."""

from __future__ import annotations

from typing import NamedTuple


class Epoch(NamedTuple):
    """One row of the history; epoch 0 is before the first step. The columns are `finetune_folder.HISTORY_COLUMNS`."""

    epoch: int
    train_loss: float | None  # as optimised, with label smoothing and mixing; None in epoch 0
    val_log_loss: float  # nats per image, calibrated by one temperature, as in the head's cross-validation
    val_accuracy: float
    learning_rate: float  # the head's, at the end of the epoch
    lowest_learning_rate: float  # of the lowest trainable group
    n_trainable: int


class Pace(NamedTuple):
    """Timing, which is only printed, since it differs between runs."""

    images_a_second: float
    left_s: float
