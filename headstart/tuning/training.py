"""The state of a training run: the optimiser, the averaged and the best weights, and the position.

All randomness is seeded by (seed, epoch, step), so the position is all that is needed to resume: a run that was killed
ends in the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.base.dataset import Images
from headstart.base.errors import CheckError, count_and_name
from headstart.tuning import checkpoint
from headstart.tuning.augment import number_from
from headstart.tuning.feed import Feed, draw_of
from headstart.tuning.history import Epoch
from headstart.tuning.judge import log_loss_and_temperature, logits_of
from headstart.tuning.loss import loss_of
from headstart.tuning.network import Network, optimiser_groups
from headstart.tuning.recipe import Recipe
from headstart.tuning.schedule import Phase

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]


@dataclass
class Position:
    """The position in training, which a checkpoint holds besides the tensors."""

    epoch: int = 1  # in progress
    step: int = 0  # steps of the epoch that are done
    loss_sum: float = 0.0  # over the images of the epoch so far
    history: list[list[Any]] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def epochs(self) -> list[Epoch]:
        """The history as records."""
        return [Epoch(*line) for line in self.history]


class Training:
    """One run of a recipe. It resumes an interrupted run with the same `made_for`."""

    def __init__(self, network: Network, recipe: Recipe) -> None:
        import torch

        self.network, self.recipe = network, recipe
        n_groups, device = recipe.most_unfrozen, recipe.processes.device.partition(":")[0]
        self._optimiser = optimiser_of(recipe.params, network, n_groups)
        self._scaler = torch.amp.GradScaler(device, enabled=recipe.precision == "float16")
        self._live = network.tensors(n_groups)
        averages = recipe.params.ema_decay is not None
        self._ema = {name: tensor.clone() for name, tensor in self._live.items()} if averages else {}
        self._best = {name: tensor.clone() for name, tensor in self._live.items()}
        self.position = Position()
        if earlier := checkpoint.load(recipe.checkpoint, recipe.made_for):
            self._restore(*earlier)

    @property
    def has_stopped(self) -> bool:
        """Whether the last `finetune.patience` epochs brought no improvement."""
        patience = self.recipe.params.patience
        return patience is not None and self.position.epoch - 1 - self.position.best_epoch >= patience

    def train_epoch(self, phase: Phase, feed: Feed, train: Images, advance: Callable[[int], None]) -> int:
        """Take the remaining steps of the current epoch; return their number of images."""
        position, settings, processes = self.position, self.recipe.params, self.recipe.processes
        batches = batches_of(len(train), settings.batch_size, settings.seed, position.epoch)
        parts = [_in_parts(processes.share(batch), settings.accumulate) for batch in batches]
        rows = [part for some in parts[position.step :] for part in some]
        loaded = feed.batches(train, rows, draw_of(position.epoch, settings.views))
        advance(sum(map(len, batches[: position.step])))
        saved_at, n_done = time.monotonic(), 0
        for step in range(position.step, len(batches)):
            mean_loss = self._step(phase, feed, train, batches, parts[step], loaded, step)
            position.step = step + 1
            position.loss_sum += mean_loss * len(batches[step])
            n_done += len(batches[step])
            advance(len(batches[step]))
            if time.monotonic() - saved_at > 60 * settings.checkpoint_minutes and position.step < len(batches):
                self.save()
                saved_at = time.monotonic()
        return n_done

    def look(self, feed: Feed, val: Images) -> tuple[float, float]:
        """Return the calibrated log loss and the accuracy on validation, with averaged weights if there are any."""
        with self._averaged():
            logits = logits_of(self.network, val, self.recipe, feed)
        return log_loss_and_temperature(logits, val.labels)[0], float((logits.argmax(1) == val.labels).mean())

    def note(self, train_loss: float | None, log_loss: float, accuracy: float) -> Epoch:
        """Add a row to the history and return it; without `train_loss` it is epoch 0, before training."""
        epoch, rates = 0 if train_loss is None else self.position.epoch, self.recipe.rates
        head = rates.at(epoch) if epoch else 0.0
        lowest = head * rates.of_group(self.recipe.phase(max(epoch, 1)).n_unfrozen)
        line = Epoch(epoch, train_loss, log_loss, accuracy, head, lowest, self.network.n_trainable)
        self.position.history.append(list(line))
        return line

    def remember_if_best(self, log_loss: float) -> None:
        """Keep the weights of this epoch if its log loss on validation is the lowest so far."""
        if log_loss < min(line.val_log_loss for line in self.position.epochs):
            self.position.best_epoch = self.position.epoch
            self._best.update((name, tensor.clone()) for name, tensor in (self._ema or self._live).items())

    def end_epoch(self) -> None:
        """Advance to the next epoch and write a checkpoint."""
        self.position.epoch, self.position.step, self.position.loss_sum = self.position.epoch + 1, 0, 0.0
        self.save()

    def take_best(self) -> None:
        """Put the weights of the best epoch into the network."""
        for name, tensor in self._live.items():
            tensor.copy_(self._best[name])

    def save(self) -> None:
        """Write a checkpoint, if this is the first process."""
        if self.recipe.processes.is_first:
            tensors = _prefixed("live", self._live) | _prefixed("ema", self._ema) | _prefixed("best", self._best)
            tensors |= _prefixed("optimiser", self._optimiser_state())
            state = asdict(self.position) | {"made_for": self.recipe.made_for, "scaler": self._scaler.state_dict()}
            checkpoint.save(self.recipe.checkpoint, tensors, state)

    def _step(
        self,
        phase: Phase,
        feed: Feed,
        train: Images,
        batches: list[np.ndarray],
        parts: list[np.ndarray],
        loaded: Iterator[tuple[torch.Tensor, ...]],
        step: int,
    ) -> float:
        """Take one step and return the mean loss of its images; CheckError if it is not finite."""
        import torch

        network, recipe, epoch = self.network, self.recipe, self.position.epoch
        settings, optimiser, scaler = recipe.params, self._optimiser, self._scaler
        trainable = list(network.parameters(phase.n_unfrozen).values())
        _seed(settings.seed, epoch, step, recipe.processes.rank)
        for group in optimiser.param_groups:
            rate = recipe.rates.at(epoch - 1 + (step + 1) / len(batches))
            group["lr"] = rate * recipe.rates.of_group(group["depth"])
        optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=network.device)
        for part in parts:
            loss = loss_of(network, feed, next(loaded), train.labels[part], recipe) / len(batches[step])
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        self._sum_up(trainable, network.statistics(phase.n_unfrozen), total)
        mean_loss = float(total)
        if not math.isfinite(mean_loss):
            raise self._not_finite(mean_loss, step, [train.paths[row] for row in batches[step]])
        if settings.clip_norm is not None:
            scaler.unscale_(optimiser)
            torch.nn.utils.clip_grad_norm_(trainable, settings.clip_norm)
        scaler.step(optimiser)
        scaler.update()
        self._average((epoch - 1) * len(batches) + step)
        return mean_loss

    def _sum_up(self, trainable: list[Any], statistics: State, loss: torch.Tensor) -> None:
        """Sum gradients and loss over all processes, and average the statistics of batch norms."""
        processes = self.recipe.processes
        if processes.size == 1:
            return
        averaged = [buffer for buffer in statistics.values() if buffer.is_floating_point()]
        for buffer in averaged:
            buffer /= processes.size
        processes.sum_([parameter.grad for parameter in trainable] + averaged + [loss])

    def _average(self, step: int) -> None:
        """Update the averaged weights; the decay is lower at first, so that the initial weights are soon forgotten."""
        decay = self.recipe.params.ema_decay or 0.0
        for name, tensor in self._ema.items():
            if tensor.is_floating_point():
                tensor.lerp_(self._live[name], 1 - min(decay, (1 + step) / (10 + step)))
            else:
                tensor.copy_(self._live[name])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Replace the live weights by the averaged ones, if there are any, while the body runs."""
        kept = {name: self._live[name].clone() for name in self._ema}
        for name, tensor in self._ema.items():
            self._live[name].copy_(tensor)
        try:
            yield
        finally:
            for name, tensor in kept.items():
                self._live[name].copy_(tensor)

    def _optimiser_state(self) -> State:
        """Return the optimiser's tensors, named 'parameter/name'."""
        return {
            f"{parameter}/{name}": value
            for parameter, tensor in self.network.parameters(self.recipe.most_unfrozen).items()
            for name, value in self._optimiser.state.get(tensor, {}).items()
            if value is not None
        }

    def _restore(self, tensors: State, state: dict[str, Any]) -> None:
        """Restore everything that a checkpoint holds."""
        places = {"live": self._live, "ema": self._ema, "best": self._best}
        parameters = self.network.parameters(self.recipe.most_unfrozen)
        for path, tensor in tensors.items():
            kind, _, name = path.partition("/")
            if kind == "optimiser":
                parameter, _, own = name.partition("/")
                of = parameters[parameter]
                moved = tensor if own == "step" else tensor.to(of.device).reshape(of.shape)
                self._optimiser.state[of][own] = moved
            else:
                places[kind][name].copy_(tensor)
        self._scaler.load_state_dict(state["scaler"])
        self.position = Position(**{name: state[name] for name in Position.__dataclass_fields__})

    def _not_finite(self, loss: float, step: int, names: Sequence[str]) -> CheckError:
        epoch, checkpoint_file = self.position.epoch, self.recipe.checkpoint
        best = f"The best state, of epoch {self.position.best_epoch}, is kept in {checkpoint_file}. "
        return CheckError(
            f"the loss became {loss} in epoch {epoch}, step {step + 1}, at learning rate"
            f" {self._optimiser.param_groups[0]['lr']:.2g}, on {len(names)} images ({count_and_name(names)}). A finite"
            f" number was expected. {best if epoch > 1 else ''}Set a lower finetune.lr, or finetune.precision to"
            " float32, in params.yaml."
        )


def batches_of(n_images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch: every row once, in batches whose sizes differ by at most one."""
    order = np.random.default_rng([seed, epoch]).permutation(n_images)
    return np.array_split(order, math.ceil(n_images / batch_size))


def optimiser_of(settings: parameters.Finetune, network: Network, n_groups: int) -> torch.optim.Optimizer:
    """Return the optimiser of the head and the last `n_groups` groups; every step sets its rate."""
    import torch

    groups = optimiser_groups(network, n_groups, settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum or 0.0)
    return torch.optim.AdamW(groups, lr=0.0)


def _seed(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed the generators that dropout, stochastic depth and mixing draw from."""
    import torch

    number = number_from(seed, "step", epoch, step, rank)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


def _in_parts(rows: np.ndarray, n_parts: int) -> list[np.ndarray]:
    return [part for part in np.array_split(rows, n_parts) if len(part)]


def _prefixed(prefix: str, tensors: State) -> State:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}
