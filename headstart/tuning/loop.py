"""The training loop: it starts at the linear probe (Kumar et al. 2022) and keeps the best epoch on validation."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from headstart.base.dataset import Images
from headstart.heads.calibration import Calibration
from headstart.tuning.feed import Feed
from headstart.tuning.history import Epoch, Pace
from headstart.tuning.judge import calibration_of, logits_of
from headstart.tuning.network import Network
from headstart.tuning.recipe import Recipe
from headstart.tuning.schedule import Phase
from headstart.tuning.training import Training

Report = Callable[[Epoch, Pace | None], None]


@dataclass(frozen=True)
class Tuned:
    """The result of training. The network holds the tensors of the best epoch."""

    history: list[Epoch]
    best_epoch: int
    calibration: Calibration  # on the validation images at the best epoch
    val_logits: np.ndarray  # float64 [N, C] of the best epoch, uncalibrated
    stopped_early: bool

    @property
    def temperature(self) -> float:
        """What the logits are divided by where the network ships."""
        return self.calibration.temperature

    @property
    def best(self) -> Epoch:
        """The row of the best epoch."""
        return self.history[self.best_epoch]


def tune(
    network: Network,
    train: Images,
    val: Images,
    recipe: Recipe,
    feed_of: Callable[[Phase], Feed],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
    report: Report = lambda epoch, pace: None,
) -> Tuned:
    """Train `network`, restore its best epoch, and return the result.

    `feed_of` returns the feed of a phase, `progress` a progress bar for a number of images. An interrupted run with the
    same `made_for` is resumed. CheckError if a loss is not finite.
    """
    training = Training(network, recipe)
    position = training.position
    feed: Feed | None = None
    for phase in recipe.phases:
        if phase.last < position.epoch or training.has_stopped:
            continue
        feed = feed_of(phase)
        with progress(len(train) * (phase.last + 1 - position.epoch)) as advance:
            _through(phase, training, feed, train, val, advance, report)
    training.take_best()
    if feed is None:  # an interrupted run had finished training
        feed = feed_of(recipe.phase(position.epoch - 1))
    logits = logits_of(network, val, recipe, feed)
    stopped = training.has_stopped and position.epoch <= recipe.params.epochs
    return Tuned(position.epochs, position.best_epoch, calibration_of(logits, val), logits, stopped)


def _through(
    phase: Phase,
    training: Training,
    feed: Feed,
    train: Images,
    val: Images,
    advance: Callable[[int], None],
    report: Report,
) -> None:
    """Train the remaining epochs of a phase."""
    network, position, n_epochs = training.network, training.position, training.recipe.params.epochs
    began, n_done = time.monotonic(), 0
    while position.epoch <= phase.last and not training.has_stopped:
        network.unfreeze(phase.n_unfrozen)
        if not position.history:
            report(training.note(None, *training.look(feed, val)), None)
            network.unfreeze(phase.n_unfrozen)
        n_done += training.train_epoch(phase, feed, train, advance)
        rate = n_done / (time.monotonic() - began)
        log_loss, accuracy = training.look(feed, val)
        training.remember_if_best(log_loss)
        line = training.note(position.loss_sum / len(train), log_loss, accuracy)
        report(line, Pace(rate, len(train) * (n_epochs - position.epoch) / rate))
        training.end_epoch()
