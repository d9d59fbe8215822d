"""Reads and assembles what a training run needs: the network with the probe as its head, images, recipe, feeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones import networks, ranked
from headstart.base import dataset, tables
from headstart.base.cores import n_cores
from headstart.base.dataset import TRAIN, VAL, Images
from headstart.base.errors import CheckError, ParamError
from headstart.base.progress import bar, mute, say
from headstart.embedding import features, pixels
from headstart.heads import contract
from headstart.heads.design import Source
from headstart.heads.linear import Linear
from headstart.heads.probe import probe
from headstart.onnx import backbone_folder, head_folder
from headstart.onnx.backbone_folder import LAST
from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.store.shards import fingerprint
from headstart.tuning import feed, processes, recipe, schedule
from headstart.tuning.augment import Augmentation
from headstart.tuning.cut import NoCutError
from headstart.tuning.feed import Feed, TrainingViews
from headstart.tuning.network import Network, autocast
from headstart.tuning.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.layout import Layout
    from headstart.params import Finetune, Params
    from headstart.tuning.processes import Processes
    from headstart.tuning.schedule import Phase

_WITHOUT_INFLUENCE = ("enabled", "checkpoint_minutes", "workers")


@dataclass(frozen=True)
class Plan:
    """Everything that training needs."""

    network: Network  # with a head fitted on train alone, calibrated
    probe_logits: np.ndarray  # float64 [N, C]: that head's logits of the cached validation features
    frozen_logits: np.ndarray  # the same of the frozen candidate, whose head may be of a kind that cannot be tuned
    train: Images
    val: Images
    recipe: Recipe
    views: TrainingViews
    classes: list[str]
    shift: np.ndarray  # float64 [C], added to calibrated logits of what ships: train_head.logit_adjustment
    from_what: dict[str, str]  # what determines the frozen layers' output, besides the view
    cache: Cache  # where that output is kept

    def feed_of(self, phase: Phase) -> Feed:
        """Return the feed of a phase: the cached output of its frozen layers if that saves work, else pixels."""
        settings = self.recipe.params
        if not settings.views:
            return self._from_pixels(phase, "because finetune.views is 0: every epoch sees new views")
        n_kept, n_without = feed.n_prefix_passes(phase, settings.views, len(self.train), len(self.val))
        if n_kept >= n_without:
            why = f"because caching the frozen layers takes {n_kept} passes through them instead of {n_without}"
            return self._from_pixels(phase, why)
        if phase.n_unfrozen == len(self.network.groups):
            return self._from_pixels(phase, "because nothing is frozen")
        try:
            parts = self.network.cut(phase.n_unfrozen)
        except NoCutError as reason:
            return self._from_pixels(phase, f"because {self.network.name} cannot be cut there: {reason}")
        in_precision = partial(autocast, self.recipe.processes.device, self.recipe.precision)
        prefix = feed.prefix_of(self.network, parts, self.views, self.recipe.precision, in_precision)
        n_frozen = len(self.network.groups) - phase.n_unfrozen
        contract = prefix.contract(n_frozen, precision=self.recipe.precision, **self.from_what)
        wanted = self._views_of(phase)
        rows = RowCache(self.cache, "frozen-layers", contract)
        n_bytes = len(wanted) * contract.row_bytes
        if refusal := rows.refusal(len(wanted)):
            return self._from_pixels(phase, f"because the frozen layers' output cannot be kept: {refusal}")

        def fill() -> None:
            with bar("frozen layers", len(wanted), "view") as advance:
                feed.fill(rows, prefix, wanted, advance)

        self.recipe.processes.first_then_all(fill)  # the others, if they are on other machines, have to compute it too
        say(
            f"{schedule.named(phase)}: from the cached output of {n_frozen} frozen groups, {n_kept} passes through them"
            f" instead of {n_without}, {n_bytes / 1e6:.0f} MB"
        )
        return feed.PrefixFeed(self.network, prefix, rows, self._compiled)

    def _from_pixels(self, phase: Phase, why: str) -> Feed:
        say(f"{schedule.named(phase)}: from pixels, {why}")
        n_workers = self.recipe.params.workers
        if n_workers is None:
            n_workers = 0 if self.recipe.processes.device == "cpu" else n_cores()
        return feed.PixelFeed(self.network, self.views, n_workers, self._compiled)

    def _views_of(self, phase: Phase) -> dict[str, str]:
        """Return all views of a phase, as `feed.wanted_view` gives them: augmented ones of train, plain ones of val."""
        return dict(
            feed.wanted_view(image_id, path, draw)
            for of, draws in (
                (self.train, feed.draws_of(phase, self.recipe.params.views)),
                (self.val, [feed.PLAIN]),
            )
            for draw in draws
            for image_id, path in zip(of.image_ids, of.paths, strict=True)
        )

    @property
    def _compiled(self) -> Callable[[Any], Any]:
        if not self.recipe.params.compile:
            return _as_it_is
        import torch

        return torch.compile


def plan(params: Params, settings: Finetune, layout: Layout) -> Plan:
    """Read everything and put the probe on the backbone.

    ParamError if `settings`, those of params.yaml or changed ones, ask for something that this machine or the backbone
    lacks; CheckError if the backbone is not the one that computed the features.
    """
    together = processes.join(settings.devices, settings.hosts)
    if not together.is_first:
        mute()
    data, known = dataset.read(layout), backbone_folder.read(layout.backbone)
    train, val = data.of(TRAIN), data.of(VAL)
    check_share(settings, together.size, len(train))
    head, read, probe_logits, frozen_logits, shift = _probe(params, layout, train, val)

    backbone = networks.load(ranked.resolved(params.backbone, layout), layout.weights, say)
    if backbone.weights_sha256 != known.weights_sha256:
        raise CheckError(
            f"the weights of {backbone.name} have SHA-256 {backbone.weights_sha256[:12]}.., but the features were"
            f" computed with {known.weights_sha256[:12]}... The same weights were expected. Run `dvc repro --force"
            " backbone`, with cache.backbones false in params.yaml if their publisher has replaced them."
        )
    levels = tuple(level for level in backbone.levels if level.name in {*read, LAST})
    weight, bias = head.weight.astype(np.float32), head.bias.astype(np.float32)
    if LAST not in read:  # the last features begin without influence, so that the upper layers can gain some
        weight = np.concatenate([weight, np.zeros((levels[-1].width, len(data.classes)), np.float32)])
    backbone = replace(backbone, levels=levels)
    network = Network(backbone, weight, bias, settings.dropout, together.device, settings.train_norms)
    from_what = {
        "backbone": f"{backbone.name} {backbone.weights_sha256} {known.backbone_onnx_sha256}",
        "pixels": pixels.contract(pixels.resizing(layout)).fingerprint,
        "levels": " ".join(level.name for level in levels),
        "torch": f"{version('torch')} {together.device.partition(':')[0]}",
    }
    libraries = ["torch", "torchvision", "timm", "numpy", "scipy"]
    if backbone.hub and backbone.hub.library == "transformers":
        libraries.append("transformers")
    made_for = fingerprint(
        **from_what,
        version=f"{recipe.VERSION}, heads {contract.VERSION}",
        libraries=" ".join(f"{name} {version(name)}" for name in libraries),
        params=settings.model_dump_json(exclude=set(_WITHOUT_INFLUENCE)),
        probe=(weight.tobytes() + bias.tobytes() + shift.tobytes()).hex(),
        frozen=frozen_logits.tobytes().hex(),
        validation=tables.VALIDATION.seal,
        images=json.dumps([[*each.image_ids, *map(int, each.labels), *each.groups] for each in (train, val)]),
    )
    chosen = _recipe(settings, len(network.groups), len(data.classes), together, layout.tuning, made_for)
    views = TrainingViews(pixels.opened(layout), Augmentation.of(settings, known.preprocessing))
    return Plan(
        network, probe_logits, frozen_logits, train, val, chosen, views, data.classes, shift, from_what, layout.cache
    )


def _recipe(
    settings: Finetune, n_groups: int, n_classes: int, together: Processes, folder: Path, made_for: str
) -> Recipe:
    phases = schedule.phases(settings.unfreeze, settings.epochs, n_groups)
    precision = precision_on(settings.precision, together.device)
    return Recipe(settings, phases, n_classes, together, precision, folder / "checkpoint.safetensors", made_for)


def _probe(
    params: Params, layout: Layout, train: Images, val: Images
) -> tuple[Linear, set[str], np.ndarray, np.ndarray, np.ndarray]:
    """Return the linear head that tuning starts from, its levels and logits of val, the frozen candidate's, the shift.

    Both heads are fitted on train alone, since validation judges them. Neither is shifted: training knows of no shift.
    """
    record, cached = head_folder.read(layout.head), features.opened(layout)
    if record.linear is None:
        raise ParamError(
            f"fine-tuning starts from a linear head, but train_head tried none: its kinds are"
            f" {', '.join(params.train_head.kinds)}. One of softmax, svm, ridge, lda or prototype was expected. Set"
            " train_head.kinds or finetune.enabled in params.yaml."
        )
    source = Source(cached.rows(train.image_ids), cached.view_rows(train.image_ids), train.labels, train.groups)
    known, memory_mb = cached.record.levels, params.train_head.memory_mb
    head, columns = probe(record, record.linear, source, known, memory_mb)
    assert isinstance(head, Linear)
    shift, validation = np.array(record.training.shift), cached.read(val.image_ids)
    logits = frozen_logits = head.scores(validation[:, columns]) - shift
    if record.linear != record.recipe:
        frozen, of_frozen = probe(record, record.recipe, source, known, memory_mb)
        frozen_logits = frozen.scores(validation[:, of_frozen]) - shift
    return head.calibrated(1.0, -shift), record.linear.levels, logits, frozen_logits, shift


def check_share(settings: Finetune, n_devices: int, n_train: int) -> None:
    """Raise ParamError if a batch may have fewer images than there are devices."""
    smallest = n_train // math.ceil(n_train / settings.batch_size)
    if smallest < n_devices:
        raise ParamError(
            f"finetune.batch_size is {settings.batch_size}, but {n_devices} devices share batches of as few as"
            f" {smallest} images. At least one image per device was expected. Set finetune.batch_size in params.yaml."
        )


def precision_on(chosen: str, device: str) -> str:
    """Return what finetune.precision means on a device; ParamError for float16 without a GPU."""
    if chosen == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if chosen == "float16" and device == "cpu":
        raise ParamError(
            "finetune.precision is 'float16', but there is no GPU. float32, bfloat16 or auto was expected. Set"
            " finetune.precision in params.yaml."
        )
    return chosen


def _as_it_is(module: Any) -> Any:
    return module
