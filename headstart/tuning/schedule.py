"""Which layers train, and at which rate: pure functions of the parameters and the position in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from headstart.base.errors import ParamError

Unfreeze = int | Literal["all"] | Mapping[int, int | Literal["all"]]


class Phase(NamedTuple):
    """Consecutive epochs with the same trainable groups."""

    first: int  # epoch, counted from 1
    last: int
    n_unfrozen: int  # groups of the backbone, from the last one down; the head is always trained

    @property
    def n_epochs(self) -> int:
        """The number of epochs."""
        return self.last - self.first + 1


def named(phase: Phase) -> str:
    """Return, in words, the epochs of a phase and what trains in them."""
    epochs = f"epoch {phase.first}" if phase.n_epochs == 1 else f"epochs {phase.first} to {phase.last}"
    what = {0: "the head alone", 1: "the head and the last layer group"}
    return f"{epochs} of {what.get(phase.n_unfrozen, f'the head and the last {phase.n_unfrozen} layer groups')}"


def phases(unfreeze: Unfreeze, n_epochs: int, n_groups: int) -> list[Phase]:
    """Return the phases of epochs 1..`n_epochs`; ParamError if `unfreeze` asks for more groups than there are.

    `unfreeze` is a number of groups, 'all', or {epoch: either}. Each entry holds from its epoch on, and 0 before the
    first.
    """
    given = unfreeze if isinstance(unfreeze, Mapping) else {1: unfreeze}
    counts = {1: 0} | {epoch: n_groups if number == "all" else int(number) for epoch, number in sorted(given.items())}
    most = max(counts.values())
    if most > n_groups:
        raise ParamError(
            f"finetune.unfreeze asks for {most} layer groups, but the backbone has {n_groups}. 0 to {n_groups}, or all,"
            " was expected. `headstart stage backbone --list NAME` shows them. Set finetune.unfreeze in params.yaml."
        )
    starts = [epoch for epoch in counts if epoch == 1 or counts[epoch] != _before(counts, epoch)]
    ends = [*(epoch - 1 for epoch in starts[1:]), n_epochs]
    return [Phase(first, last, counts[first]) for first, last in zip(starts, ends, strict=True)]


def _before(counts: Mapping[int, int], epoch: int) -> int:
    return counts[max(earlier for earlier in counts if earlier < epoch)]


class Rates(NamedTuple):
    """The learning-rate schedule."""

    peak: float  # the head's
    group_decay: float  # factor from each group to the one below it
    n_epochs: int
    warmup_epochs: float
    step_epochs: int | None  # None: cosine down to 0 (Loshchilov & Hutter 2017, section 3, without restarts)
    step_factor: float | None

    def at(self, epoch: float) -> float:
        """Return the head's learning rate after `epoch` epochs, which may be a fraction."""
        if epoch < self.warmup_epochs:
            return self.peak * epoch / self.warmup_epochs
        if self.step_epochs is not None and self.step_factor is not None:
            return self.peak * float(self.step_factor ** (epoch // self.step_epochs))
        share = (epoch - self.warmup_epochs) / (self.n_epochs - self.warmup_epochs)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))

    def of_group(self, depth: int) -> float:
        """Return the factor on the head's learning rate for the `depth`-th group below it (Howard & Ruder 2018)."""
        return float(self.group_decay**depth)
