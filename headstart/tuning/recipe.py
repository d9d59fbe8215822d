"""The settings of a training run: its parameters and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.tuning.processes import Processes
from headstart.tuning.schedule import Phase, Rates

if TYPE_CHECKING:
    from headstart import params as parameters

# The version of the training code; a finished network of the same version is kept. Increment it when training would end
# in other tensors; a test detects that.
VERSION = "3"


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    params: parameters.Finetune
    phases: list[Phase]
    n_classes: int
    processes: Processes
    precision: str  # 'float32' | 'bfloat16' | 'float16'
    checkpoint: Path
    made_for: str  # the digest of all that determines the result

    @property
    def most_unfrozen(self) -> int:
        """The largest number of trainable groups in any phase."""
        return max(phase.n_unfrozen for phase in self.phases)

    @property
    def rates(self) -> Rates:
        """The learning-rate schedule."""
        one = self.params
        return Rates(one.lr, one.lr_decay, one.epochs, one.warmup_epochs, one.step_epochs, one.step_factor)

    def phase(self, epoch: int) -> Phase:
        """Return the phase that an epoch belongs to."""
        return next(phase for phase in self.phases if phase.first <= epoch <= phase.last)
