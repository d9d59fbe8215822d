"""The section `finetune` of params.yaml."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from headstart.param_types import Fraction, Positive, ProperFraction, Section, Seed, Unfreeze, finite


class Finetune(Section):
    """Whether and how the backbone is trained further."""

    enabled: bool
    seed: Seed
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    accumulate: Annotated[int, Field(ge=1)]
    unfreeze: Unfreeze
    train_norms: bool
    optimizer: Literal["adamw", "sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)] | None
    lr: Positive
    lr_decay: Annotated[float, Field(gt=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0), AfterValidator(finite)]
    warmup_epochs: Annotated[float, Field(ge=0), AfterValidator(finite)]
    step_epochs: Annotated[int, Field(ge=1)] | None
    step_factor: Annotated[float, Field(gt=0, lt=1)] | None
    clip_norm: Positive | None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    mixup: Annotated[float, Field(ge=0), AfterValidator(finite)]
    cutmix: Annotated[float, Field(ge=0), AfterValidator(finite)]
    ema_decay: ProperFraction | None
    patience: Annotated[int, Field(ge=1)] | None
    views: Annotated[int, Field(ge=0, le=1000)]
    crop_area: Annotated[float, Field(gt=0, le=1)]
    flip: bool
    policy: Literal["none", "trivial", "rand"]
    erasing: Fraction
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    compile: bool
    devices: Annotated[int, Field(ge=1)]
    hosts: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0)] | None
    checkpoint_minutes: Positive

    @model_validator(mode="after")
    def _has_no_option_without_effect(self) -> Finetune:
        """Of a disabled stage no option has an effect, and any may be set."""
        if not self.enabled:
            return self
        schedule = self.unfreeze if isinstance(self.unfreeze, dict) else {1: self.unfreeze}
        counts = [math.inf if schedule[epoch] == "all" else schedule[epoch] for epoch in sorted(schedule)]
        offences = {
            f"momentum is {self.momentum}, which adamw has no use for; set it to null": (
                self.optimizer == "adamw" and self.momentum is not None
            ),
            f"step_epochs is {self.step_epochs} and step_factor {self.step_factor}; both or neither are expected": (
                (self.step_epochs is None) != (self.step_factor is None)
            ),
            f"warmup_epochs is {self.warmup_epochs}, and there are {self.epochs} epochs; fewer are expected": (
                self.warmup_epochs >= self.epochs
            ),
            f"step_epochs is {self.step_epochs}, and there are {self.epochs} epochs; it would have no effect": (
                self.step_epochs is not None and self.step_epochs >= self.epochs
            ),
            f"patience is {self.patience}, and there are {self.epochs} epochs; it would have no effect": (
                self.patience is not None and self.patience >= self.epochs
            ),
            f"accumulate is {self.accumulate}, more than the batch_size {self.batch_size}": (
                self.accumulate > self.batch_size
            ),
            f"batch_size is {self.batch_size}, and {self.devices * self.hosts} devices share it; more are expected": (
                self.batch_size < self.devices * self.hosts
            ),
            f"unfreeze names epoch {max(schedule, default=0)}, and there are {self.epochs}; it would have no effect": (
                max(schedule, default=0) > self.epochs
            ),
            f"unfreeze is {self.unfreeze}, which freezes what was trained; a number may not be below the one before": (
                counts != sorted(counts)
            ),
            "unfreeze is {}; {epoch: groups} is expected": not schedule,
            "train_norms is true, and no group is unfrozen; set it to false": self.train_norms and not any(counts),
            f"views is {self.views}, and mixup and cutmix mix new pixels in every step; set views, or both, to 0": (
                bool(self.views and (self.mixup or self.cutmix))
            ),
            f"views is {self.views}, and nothing stays frozen, so there is nothing to keep of them; set it to 0": (
                bool(self.views) and counts[:1] == [math.inf]
            ),
        }
        for offence, is_made in offences.items():
            if is_made:
                raise ValueError(offence)
        return self
