"""What is noted of each epoch of training."""

from __future__ import annotations

from typing import NamedTuple


class Epoch(NamedTuple):
    """One line of the history; epoch 0 is before the first step. Its columns are `finetune_folder.HISTORY_COLUMNS`."""

    epoch: int
    train_loss: float | None  # as optimised: with label smoothing and mixing
    val_log_loss: float  # nats an image, calibrated by one temperature, as candidates for the head are compared
    val_accuracy: float
    learning_rate: float  # the head's, at the end of the epoch
    lowest_learning_rate: float  # of the lowest group that is trained
    n_trainable: int


class Pace(NamedTuple):
    """What only the terminal is told, since it differs between runs."""

    images_a_second: float
    left_s: float
