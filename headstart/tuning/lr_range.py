"""The learning-rate range test (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headstart.base.dataset import Images
from headstart.tuning.feed import Feed, draw_of
from headstart.tuning.loss import loss_of
from headstart.tuning.network import Network
from headstart.tuning.recipe import Recipe
from headstart.tuning.training import batches_of, optimiser_of

if TYPE_CHECKING:
    import numpy as np
    import torch

LOWEST, HIGHEST = 1e-6, 1.0
N_STEPS = 100
_SMOOTHING = 0.9  # of the exponential average, as in fastai's implementation
_DIVERGED = 3.0  # the test ends at this multiple of the lowest smoothed loss
_MARGIN = 10.0  # the proposal is this factor below the rate of the lowest loss, where training becomes unstable


class Point(NamedTuple):
    """One step of the test."""

    learning_rate: float
    loss: float
    smoothed_loss: float


def range_test(
    network: Network, train: Images, recipe: Recipe, feed: Feed, advance: Callable[[int], None]
) -> list[Point]:
    """Train with an exponentially growing rate, one step per rate, until the loss diverges; return the points.

    The network is unusable afterwards.
    """
    optimiser = optimiser_of(recipe.params, network, recipe.most_unfrozen)
    network.unfreeze(recipe.most_unfrozen)
    points: list[Point] = []
    average = 0.0
    for step, (rows, images) in enumerate(_endless(train, recipe, feed)):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (N_STEPS - 1))
        for group in optimiser.param_groups:
            group["lr"] = rate * recipe.rates.of_group(group["depth"])
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(network, feed, images, train.labels[rows], recipe) / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        average = _SMOOTHING * average + (1 - _SMOOTHING) * float(loss.detach())
        smoothed = average / (1 - _SMOOTHING ** (step + 1))
        advance(1)
        if not math.isfinite(smoothed) or (points and smoothed > _DIVERGED * min(p.smoothed_loss for p in points)):
            break
        points.append(Point(rate, float(loss.detach()), smoothed))
        if len(points) == N_STEPS:
            break
    return points


def proposal(points: list[Point]) -> float:
    """Return a tenth of the rate at which the smoothed loss was lowest, to two digits."""
    best = min(points, key=lambda point: point.smoothed_loss)
    return float(f"{best.learning_rate / _MARGIN:.1e}")


def plot(points: list[Point], proposed: float, path: Path) -> None:
    """Draw the test as SVG, PNG or PDF, depending on the suffix of `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rates = [point.learning_rate for point in points]
    axes.plot(rates, [point.loss for point in points], ".", color="0.7", label="loss of a step")
    axes.plot(rates, [point.smoothed_loss for point in points], color="C0", label="smoothed")
    axes.axvline(proposed, color="C1", linestyle="--", label=f"proposed: {proposed:g}")
    axes.set(xscale="log", xlabel="learning rate of the head (finetune.lr)", ylabel="training loss")
    axes.legend()
    figure.savefig(path, format=path.suffixes[-1].lstrip("."))


def _endless(train: Images, recipe: Recipe, feed: Feed) -> Iterator[tuple[np.ndarray, tuple[torch.Tensor, ...]]]:
    epoch = 0
    while True:
        epoch += 1
        rows = batches_of(len(train), recipe.params.batch_size, recipe.params.seed, epoch)
        yield from zip(rows, feed.batches(train, rows, draw_of(epoch, recipe.params.views)), strict=True)
