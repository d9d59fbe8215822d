"""The training loop: from the linear probe on (Kumar et al. 2022), keeping the epoch that is best on validation.

Whatever is random follows from (seed, epoch, step), so the position alone says how to go on: a run that was killed ends
in the same bytes as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headstart.base.errors import CheckError, count_and_name
from headstart.tuning import checkpoint
from headstart.tuning.augment import number_from
from headstart.tuning.feed import Feed, Images, PixelFeed, draw_of
from headstart.tuning.judge import log_loss_and_temperature, logits_of
from headstart.tuning.network import Network, autocast, optimiser_groups
from headstart.tuning.processes import Processes
from headstart.tuning.schedule import Phase
from headstart.tuning.setting import Setting

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters

    State = dict[str, torch.Tensor]


class Epoch(NamedTuple):
    """One line of the history; epoch 0 is before the first step."""

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


@dataclass
class Position:
    """How far training is: all that a checkpoint holds beside tensors."""

    epoch: int = 1  # in progress
    step: int = 0  # done in it
    loss_sum: float = 0.0  # over the images of this epoch so far
    history: list[list[Any]] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def epochs(self) -> list[Epoch]:
        """The history as it is returned."""
        return [Epoch(*line) for line in self.history]


@dataclass(frozen=True)
class Tuned:
    """What training ended in; the network holds the tensors of the best epoch."""

    history: list[Epoch]
    best_epoch: int
    temperature: float  # fitted on the validation images at the best epoch
    val_logits: np.ndarray  # float64 [N, C] of the best epoch, uncalibrated
    stopped_early: bool


def tune(
    network: Network,
    train: Images,
    val: Images,
    setting: Setting,
    feed_of: Callable[[Phase], Feed],
    progress: Callable[[int], AbstractContextManager[Callable[[int], None]]],
    report: Callable[[Epoch, Pace | None], None] = lambda epoch, pace: None,
) -> Tuned:
    """Train `network`, leave it as it was in its best epoch, and return how it went.

    `feed_of` gives what the epochs of a phase train on; `progress` a bar for so many images. Goes on where an
    interrupted run with the same `made_for` was. CheckError where a loss is not finite.
    """
    import torch

    settings, processes, n_kept = setting.params, setting.processes, setting.most_unfrozen
    optimiser = optimiser_of(settings, network, n_kept)
    scaler = torch.amp.GradScaler(processes.device.partition(":")[0], enabled=setting.precision == "float16")
    live = network.tensors(n_kept)
    ema = {name: tensor.clone() for name, tensor in live.items()} if settings.ema_decay is not None else {}
    best = {name: tensor.clone() for name, tensor in live.items()}
    position = Position()
    if earlier := checkpoint.load(setting.checkpoint, setting.made_for):
        position = _restore(*earlier, network, n_kept, optimiser, scaler, ema, best)

    def keep() -> None:
        if processes.is_first:
            tensors = _prefixed("live", live) | _prefixed("ema", ema) | _prefixed("best", best)
            tensors |= _prefixed("optimiser", _optimiser_state(network, n_kept, optimiser))
            state = asdict(position) | {"made_for": setting.made_for, "scaler": scaler.state_dict()}
            checkpoint.save(setting.checkpoint, tensors, state)

    def one_epoch(phase: Phase, feed: Feed, advance: Callable[[int], None]) -> int:
        """Take the steps of the current epoch that are left; return how many images they had."""
        epoch = position.epoch
        batches = batches_of(len(train), settings.batch_size, settings.seed, epoch)
        parts = [_in_parts(processes.share(batch), settings.accumulate) for batch in batches]
        rows = [part for some in parts[position.step :] for part in some]
        loaded = feed.batches(train, rows, draw_of(epoch, settings.views))
        trainable = list(network.parameters(phase.n_unfrozen).values())
        advance(sum(map(len, batches[: position.step])))
        saved_at, n_done = time.monotonic(), 0
        for step in range(position.step, len(batches)):
            _seed(settings.seed, epoch, step, processes.rank)
            for group in optimiser.param_groups:
                rate = setting.rates.at(epoch - 1 + (step + 1) / len(batches))
                group["lr"] = rate * setting.rates.of_group(group["depth"])
            optimiser.zero_grad(set_to_none=True)
            total = torch.zeros((), device=network.device)
            for part in parts[step]:
                loss = loss_of(network, feed, next(loaded), train.labels[part], setting) / len(batches[step])
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
            _sum_up(processes, trainable, network.statistics(phase.n_unfrozen), total)
            mean_loss = float(total)
            if not math.isfinite(mean_loss):
                names = [train.paths[row] for row in batches[step]]
                raise _not_finite(mean_loss, epoch, step, optimiser.param_groups[0]["lr"], names, position, setting)
            if settings.clip_norm is not None:
                scaler.unscale_(optimiser)
                torch.nn.utils.clip_grad_norm_(trainable, settings.clip_norm)
            scaler.step(optimiser)
            scaler.update()
            _average(ema, live, settings.ema_decay, (epoch - 1) * len(batches) + step)
            position.step = step + 1
            position.loss_sum += mean_loss * len(batches[step])
            n_done += len(batches[step])
            advance(len(batches[step]))
            if time.monotonic() - saved_at > 60 * settings.checkpoint_minutes and position.step < len(batches):
                keep()
                saved_at = time.monotonic()
        return n_done

    def looked_at(feed: Feed) -> tuple[float, float]:
        """Return the calibrated log loss and the accuracy on validation, of the averaged weights if there are any."""
        with _swapped(live, ema):
            logits = logits_of(network, val, setting, feed)
        return log_loss_and_temperature(logits, val.labels)[0], float((logits.argmax(1) == val.labels).mean())

    def record(train_loss: float | None, log_loss: float, accuracy: float, pace: Pace | None) -> None:
        rates = setting.rates
        head = rates.at(position.epoch) if train_loss is not None else 0.0
        lowest = head * rates.of_group(setting.phase(max(position.epoch, 1)).n_unfrozen)
        epoch = position.epoch if train_loss is not None else 0
        line = Epoch(epoch, train_loss, log_loss, accuracy, head, lowest, network.n_trainable)
        position.history.append(list(line))
        report(line, pace)

    feed: Feed | None = None
    for phase in setting.phases:
        if phase.last < position.epoch or _has_stopped(position, settings.patience):
            continue
        feed = feed_of(phase)
        began, n_done = time.monotonic(), 0
        with progress(len(train) * (phase.last + 1 - position.epoch)) as advance:
            while position.epoch <= phase.last and not _has_stopped(position, settings.patience):
                network.unfreeze(phase.n_unfrozen)
                if not position.history:
                    record(None, *looked_at(feed), None)
                    network.unfreeze(phase.n_unfrozen)
                n_done += one_epoch(phase, feed, advance)
                rate = n_done / (time.monotonic() - began)
                log_loss, accuracy = looked_at(feed)
                if log_loss < min(line.val_log_loss for line in position.epochs):
                    position.best_epoch = position.epoch
                    best.update((name, tensor.clone()) for name, tensor in (ema or live).items())
                pace = Pace(rate, len(train) * (settings.epochs - position.epoch) / rate)
                record(position.loss_sum / len(train), log_loss, accuracy, pace)
                position.epoch, position.step, position.loss_sum = position.epoch + 1, 0, 0.0
                keep()

    for name, tensor in live.items():
        tensor.copy_(best[name])
    if feed is None:  # an interrupted run had trained to the end
        feed = feed_of(setting.phase(position.epoch - 1))
    logits = logits_of(network, val, setting, feed)
    stopped = _has_stopped(position, settings.patience) and position.epoch <= settings.epochs
    temperature = log_loss_and_temperature(logits, val.labels)[1]
    return Tuned(position.epochs, position.best_epoch, temperature, logits, stopped)


def batches_of(n_images: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch: all of them once, in sizes that differ by one at most."""
    order = np.random.default_rng([seed, epoch]).permutation(n_images)
    return np.array_split(order, math.ceil(n_images / batch_size))


def optimiser_of(settings: parameters.Finetune, network: Network, n_groups: int) -> torch.optim.Optimizer:
    """Return the optimiser of the head and the last `n_groups`, with a rate of 0 that every step sets anew."""
    import torch

    groups = optimiser_groups(network, n_groups, settings.weight_decay)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum or 0.0)
    return torch.optim.AdamW(groups, lr=0.0)


def loss_of(
    network: Network, feed: Feed, tensors: tuple[torch.Tensor, ...], labels: np.ndarray, setting: Setting
) -> torch.Tensor:
    """Return the summed loss of some images, in the setting's precision."""
    import torch
    from torch.nn.functional import cross_entropy

    settings, targets = setting.params, torch.from_numpy(labels).to(network.device)
    with autocast(network.device, setting.precision):
        if settings.mixup or settings.cutmix:
            features, targets = _mixed_features(network, feed, tensors, targets, setting)
        else:
            features = feed.features(tensors)
        logits = network.logits(features).float()
    loss: torch.Tensor = cross_entropy(logits, targets, reduction="sum", label_smoothing=settings.label_smoothing)
    return loss


def _mixed_features(
    network: Network, feed: Feed, tensors: tuple[torch.Tensor, ...], labels: torch.Tensor, setting: Setting
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of mixed images and their targets [B, C] (Zhang et al. 2018; Yun et al. 2019)."""
    from torchvision.transforms import v2

    settings, mixers = setting.params, []
    if settings.mixup:
        mixers.append(v2.MixUp(alpha=settings.mixup, num_classes=setting.n_classes))
    if settings.cutmix:
        mixers.append(v2.CutMix(alpha=settings.cutmix, num_classes=setting.n_classes))
    images, targets = v2.RandomChoice(mixers)(network.normalised(tensors[0]), labels)
    assert isinstance(feed, PixelFeed)  # mixing excludes finetune.views
    features: torch.Tensor = feed.whole(images)
    return features, targets


def _sum_up(processes: Processes, trainable: list[Any], statistics: State, loss: torch.Tensor) -> None:
    """Bring gradients, batch norms' statistics and the loss of all processes together."""
    if processes.size == 1:
        return
    averaged = [buffer for buffer in statistics.values() if buffer.is_floating_point()]
    for buffer in averaged:
        buffer /= processes.size
    processes.sum_([parameter.grad for parameter in trainable] + averaged + [loss])


def _average(ema: State, live: State, decay: float | None, step: int) -> None:
    """Move the averaged weights; the average is shorter at first, so that it does not hold on to the start."""
    for name, tensor in ema.items():
        if tensor.is_floating_point():
            tensor.lerp_(live[name], 1 - min(decay or 0.0, (1 + step) / (10 + step)))
        else:
            tensor.copy_(live[name])


@contextmanager
def _swapped(live: State, ema: State) -> Iterator[None]:
    """Put the averaged weights, if there are any, in the place of the live ones for a while."""
    kept = {name: live[name].clone() for name in ema}
    for name, tensor in ema.items():
        live[name].copy_(tensor)
    try:
        yield
    finally:
        for name, tensor in kept.items():
            live[name].copy_(tensor)


def _seed(seed: int, epoch: int, step: int, rank: int) -> None:
    """Set the generators that dropout, stochastic depth and mixing draw from."""
    import torch

    number = number_from(seed, "step", epoch, step, rank)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(number)


def _in_parts(rows: np.ndarray, n_parts: int) -> list[np.ndarray]:
    return [part for part in np.array_split(rows, n_parts) if len(part)]


def _has_stopped(position: Position, patience: int | None) -> bool:
    return patience is not None and position.epoch - 1 - position.best_epoch >= patience


def _not_finite(
    loss: float, epoch: int, step: int, rate: float, names: list[str], position: Position, setting: Setting
) -> CheckError:
    kept = f"The best state, of epoch {position.best_epoch}, is kept in {setting.checkpoint}. " if epoch > 1 else ""
    return CheckError(
        f"the loss became {loss} in epoch {epoch}, step {step + 1}, at learning rate {rate:.2g}, on {len(names)} images"
        f" ({count_and_name(names)}). A finite number was expected. {kept}Set a lower finetune.lr, or"
        " finetune.precision to float32, in params.yaml."
    )


def _prefixed(prefix: str, tensors: State) -> State:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _optimiser_state(network: Network, n_groups: int, optimiser: torch.optim.Optimizer) -> State:
    """Return the optimiser's tensors as 'parameter/name'."""
    return {
        f"{parameter}/{name}": value
        for parameter, tensor in network.parameters(n_groups).items()
        for name, value in optimiser.state.get(tensor, {}).items()
        if value is not None
    }


def _restore(
    tensors: State,
    state: dict[str, Any],
    network: Network,
    n_groups: int,
    optimiser: torch.optim.Optimizer,
    scaler: Any,
    ema: State,
    best: State,
) -> Position:
    """Put everything where a checkpoint says it was, and return the position."""
    places = {"live": network.tensors(n_groups), "ema": ema, "best": best}
    parameters = network.parameters(n_groups)
    for path, tensor in tensors.items():
        kind, _, name = path.partition("/")
        if kind == "optimiser":
            parameter, _, own = name.partition("/")
            of = parameters[parameter]
            optimiser.state[of][own] = tensor if own == "step" else tensor.to(of.device).reshape(of.shape)
        else:
            places[kind][name].copy_(tensor)
    scaler.load_state_dict(state["scaler"])
    return Position(**{name: state[name] for name in Position.__dataclass_fields__})
