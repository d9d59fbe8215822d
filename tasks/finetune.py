"""Train the backbone's last layers further, from the linear probe on; what comes out is one more candidate.

Reads the pixels, the features, the head's strength and the backbone; writes artifacts/finetune/. The head that ships
has been fitted on train and val. Here it is fitted on train alone, so that validation can tell whether training further
pays. The test split has no part in anything here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from scipy.special import softmax

from headstart.backbones import networks
from headstart.backbones.graph import backbone_graph, trace
from headstart.base import tables
from headstart.base.cores import n_cores
from headstart.base.errors import CheckError, ParamError
from headstart.base.files import read_json, replacing_folder, sha256_of, write_csv, write_json, write_safetensors
from headstart.base.progress import bar, mute, say, show_table, warn
from headstart.embedding import pixels
from headstart.heads import sweep
from headstart.onnx import pieces, runtime
from headstart.store import arrays
from headstart.store.shards import fingerprint
from headstart.tuning import feed, processes, schedule
from headstart.tuning.augment import Augmentation
from headstart.tuning.cut import NoCutError
from headstart.tuning.feed import Feed, Images
from headstart.tuning.judge import log_loss_and_temperature, losses_of, novelty_of
from headstart.tuning.loop import Epoch, Pace, Tuned, tune
from headstart.tuning.lr_range import N_STEPS, Point, plot, proposal, range_test
from headstart.tuning.network import Network, autocast
from headstart.tuning.setting import Setting

if TYPE_CHECKING:
    from headstart.layout import Layout
    from headstart.params import Finetune, Params

MAX_RELATIVE_DIFFERENCE = 1e-3  # of the features' root mean square, between onnxruntime and PyTorch
MAX_STEP_0_DIFFERENCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}  # of the log loss, in nats an image
_GATE_IMAGES = 64
_WITHOUT_INFLUENCE = ("enabled", "checkpoint_minutes", "workers")


@dataclass(frozen=True)
class Probe:
    """The frozen candidate as validation sees it: a head fitted on train alone, on the stored features."""

    weight: np.ndarray  # float32 [D, C]; calibration is folded in
    bias: np.ndarray  # float32 [C]
    val_logits: np.ndarray  # float64 [N, C]


@dataclass(frozen=True)
class Prepared:
    """All that training needs."""

    network: Network
    probe: Probe
    train: Images
    val: Images
    setting: Setting
    views: feed.Views
    feed_of: Callable[[schedule.Phase], Feed]
    classes: list[str]


def run(params: Params, layout: Layout) -> None:
    """Read, train, export, compare, write; or write that it is off."""
    settings = params.finetune
    if not settings.enabled:
        with replacing_folder(layout.finetune) as folder:
            write_json(folder / "finetune.json", {"enabled": False})
            write_csv(
                folder / "history.csv", pl.DataFrame(schema=dict.fromkeys(Epoch._fields, pl.Float64))
            )  # a DVC plot
        say("off; finetune.enabled in params.yaml turns it on")
        return
    prepared = _prepared(params, settings, layout)
    setting, network = prepared.setting, prepared.network
    probe_loss, _ = log_loss_and_temperature(prepared.probe.val_logits, prepared.val.labels)

    def told(epoch: Epoch, pace: Pace | None) -> None:
        if epoch.epoch == 0:
            _check_step_0(epoch, probe_loss, setting.precision)
        say(line_of(epoch, pace, settings.epochs))

    def training(n_images: int) -> AbstractContextManager[Callable[[int], None]]:
        return bar("training", n_images, "image")

    tuned = tune(network, prepared.train, prepared.val, setting, prepared.feed_of, training, told)
    if not setting.processes.is_first:
        setting.processes.wait()  # for the first one, which writes
        return
    if tuned.stopped_early:
        say(f"no better epoch in {settings.patience}: stopped after epoch {tuned.history[-1].epoch}")
    _write(prepared, tuned, layout)
    setting.checkpoint.unlink(missing_ok=True)
    setting.processes.wait()
    best = tuned.history[tuned.best_epoch]
    say(
        f"best is epoch {best.epoch}: log loss {best.val_log_loss:.4f} and {best.val_accuracy:.2%} of"
        f" {len(prepared.val)} validation images right, the frozen backbone's {probe_loss:.4f} and"
        f" {tuned.history[0].val_accuracy:.2%}"
    )


def find_lr(params: Params, layout: Layout) -> None:
    """Run the range test, write its plot and its points to artifacts/tuning/, and say what it proposes."""
    settings = params.finetune.model_copy(update={"enabled": True, "devices": 1, "hosts": 1})
    prepared = _prepared(params, settings, layout)
    last = prepared.setting.phases[-1]
    chosen = prepared.feed_of(schedule.Phase(1, settings.epochs, last.n_unfrozen))
    with bar("learning rates", N_STEPS, "step") as advance:
        points = range_test(prepared.network, prepared.train, prepared.setting, chosen, advance)
    proposed = proposal(points)
    layout.tuning.mkdir(parents=True, exist_ok=True)
    write_csv(layout.tuning / "lr_range.csv", pl.DataFrame(points, schema=Point._fields, orient="row"))
    plot(points, proposed, layout.tuning / "lr_range.svg")
    say(f"finetune.lr={proposed:g} is proposed, a tenth of where the loss was lowest: {layout.tuning / 'lr_range.svg'}")


def line_of(epoch: Epoch, pace: Pace | None, n_epochs: int) -> str:
    """Return what a terminal shows of an epoch."""
    val = f"val log loss {epoch.val_log_loss:.4f}, val accuracy {epoch.val_accuracy:.2%}"
    if epoch.train_loss is None:
        return f"before training: {val}"
    rates = f"learning rate {epoch.learning_rate:.1e}"
    if epoch.lowest_learning_rate != epoch.learning_rate:
        rates += f" to {epoch.lowest_learning_rate:.1e}"
    timing = f", {pace.images_a_second:.0f} images/s, {pace.left_s:.0f} s left" if pace else ""
    return (
        f"epoch {epoch.epoch}/{n_epochs}: train loss {epoch.train_loss:.4f}, {val}, {rates},"
        f" {epoch.n_trainable:,} trainable{timing}"
    )


def images_of(splits: pl.DataFrame, split: str, classes: list[str]) -> Images:
    """Return the images of a split, which `split` leaves some in."""
    rows = splits.filter(pl.col("split") == split)
    labels = rows["label"].replace_strict(classes, range(len(classes)), return_dtype=pl.Int64).to_numpy()
    return Images(rows["image_id"].to_list(), rows["path"].to_list(), np.array(labels))


def _prepared(params: Params, settings: Finetune, layout: Layout) -> Prepared:
    """Read everything and put the probe on the backbone; ParamError and CheckError as the texts say."""
    together = processes.join(settings.devices, settings.hosts)
    if not together.is_first:
        mute()
    classes: list[str] = read_json(layout.split_summary, "split")["classes"]
    splits = tables.read(layout.splits, tables.SPLITS, "split")
    train, val = (images_of(splits, split, classes) for split in ("train", "val"))
    _check_share(settings, together.size, len(train))
    probe = _probe(params, layout, train, val, len(classes))

    record = read_json(layout.backbone / "backbone.json", "backbone")
    backbone = networks.load(params.backbone, layout.weights, say)
    if backbone.weights_sha256 != record["weights_sha256"]:
        raise CheckError(
            f"the weights of {backbone.name} are {backbone.weights_sha256[:12]}.., and the features were made with"
            f" {record['weights_sha256'][:12]}... The same were expected. Run `dvc repro --force backbone`."
        )
    network = Network(backbone, probe.weight, probe.bias, settings.dropout, together.device, settings.train_norms)
    phases = schedule.phases(settings.unfreeze, settings.epochs, len(network.groups))
    resizing = pixels.resizing(layout.backbone, layout.images_folder(params.data.root))
    source = pixels.source(layout.pixels, layout.shards(layout.pixels, params.cluster.store), resizing)
    from_what = {
        "backbone": f"{backbone.name} {backbone.weights_sha256} {record['backbone_onnx_sha256']}",
        "pixels": pixels.contract(resizing).fingerprint,
        "torch": f"{version('torch')} {together.device.partition(':')[0]}",
    }
    setting = Setting(
        settings,
        phases,
        len(classes),
        together,
        _precision(settings.precision, together.device),
        layout.tuning / "checkpoint.safetensors",
        fingerprint(
            **from_what,
            params=settings.model_dump_json(exclude=set(_WITHOUT_INFLUENCE)),
            probe=(probe.weight.tobytes() + probe.bias.tobytes()).hex(),
            images=json.dumps([[*each.image_ids, *map(int, each.labels)] for each in (train, val)]),
        ),
    )
    views = feed.Views(source, Augmentation.of(settings, backbone.preprocessing))

    def feed_of(phase: schedule.Phase) -> Feed:
        return _feed(network, views, phase, setting, (train, val), from_what, layout)

    return Prepared(network, probe, train, val, setting, views, feed_of, classes)


def _check_share(settings: Finetune, n_devices: int, n_train: int) -> None:
    smallest = n_train // math.ceil(n_train / settings.batch_size)
    if smallest < n_devices:
        raise ParamError(
            f"finetune.batch_size is {settings.batch_size}, and {n_devices} devices share a batch, of {smallest} images"
            " at least. An image or more for each was expected. Set finetune.batch_size in params.yaml."
        )


def _probe(params: Params, layout: Layout, train: Images, val: Images, n_classes: int) -> Probe:
    head = read_json(layout.head / "head.json", "train_head")
    plain = arrays.Store(layout.plain_features, "embed", layout.shards(layout.plain_features, params.cluster.store))
    features, views = arrays.Rows(plain, train.image_ids, plain.contract.row_shape[1:]), None
    if head["n_views"]:
        augmented = arrays.Store(layout.views, "embed", layout.shards(layout.views, params.cluster.store))
        views = arrays.Rows(augmented, train.image_ids, augmented.contract.row_shape)
    n_values = len(train) * (1 + head["n_views"]) * plain.contract.row_shape[1]
    fits = 4e-6 * n_values < params.train_head.memory_mb - sweep.PROCESS_MB
    weight, bias = sweep.fit(features, train.labels, n_classes, head["strength"], views, hold=fits)
    weight, bias = weight / head["temperature"], bias / head["temperature"]
    logits = plain.read(val.image_ids)[:, 0].astype(np.float64) @ weight + bias
    return Probe(weight.astype(np.float32), bias.astype(np.float32), logits)


def _precision(chosen: str, device: str) -> str:
    if chosen == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if chosen == "float16" and device == "cpu":
        raise ParamError(
            "finetune.precision is 'float16', and there is no GPU. float32, bfloat16 or auto was expected. Set"
            " finetune.precision in params.yaml."
        )
    return chosen


def _feed(
    network: Network,
    views: feed.Views,
    phase: schedule.Phase,
    setting: Setting,
    images: tuple[Images, Images],
    from_what: dict[str, str],
    layout: Layout,
) -> Feed:
    """Return what a phase trains on: the kept output of its frozen layers where that saves work, else pixels."""
    settings, together = setting.params, setting.processes
    train, val = images
    folder = layout.tuning / "prefix"
    if settings.compile:
        import torch

        compiled: Callable[[Any], Any] = torch.compile
    else:
        compiled = _as_it_is
    n_workers = settings.workers
    if n_workers is None:
        n_workers = 0 if together.device == "cpu" else n_cores()

    what = f"{'epoch' if phase.n_epochs == 1 else 'epochs'} {phase.first}"
    what += f" to {phase.last}" if phase.n_epochs > 1 else ""
    what += {0: " of the head alone", 1: " of the head and the last layer group"}.get(
        phase.n_unfrozen, f" of the head and the last {phase.n_unfrozen} layer groups"
    )

    def from_pixels(why: str) -> Feed:
        if together.is_first:
            feed.drop(folder)
        say(f"{what}: from pixels, {why}")
        return feed.PixelFeed(network, views, n_workers, compiled)

    if not settings.views:
        return from_pixels("since finetune.views is 0 and every epoch sees new ones")
    n_kept, n_without = feed.n_prefix_passes(phase, settings.views, len(train), len(val))
    if n_kept >= n_without:
        return from_pixels(f"since keeping what is frozen takes {n_kept} passes through it, and not {n_without}")
    if phase.n_unfrozen == len(network.groups):
        return from_pixels("since nothing is frozen")
    try:
        parts = network.cut(phase.n_unfrozen)
    except NoCutError as reason:
        return from_pixels(f"since {network.name} cannot be cut there: {reason}")
    wanted = {
        feed.key(image_id, draw): f"{draw} {image_id} {path}"
        for of, draws in ((train, feed.draws_of(phase, settings.views)), (val, [feed.PLAIN]))
        for draw in draws
        for image_id, path in zip(of.image_ids, of.paths, strict=True)
    }
    in_precision = partial(autocast, together.device, setting.precision)
    prefix = feed.prefix_of(network, parts, views, setting.precision, in_precision)
    n_frozen = len(network.groups) - phase.n_unfrozen
    contract = prefix.contract(n_frozen, precision=setting.precision, **from_what)
    n_bytes = len(wanted) * contract.row_bytes
    if not feed.has_room(folder, n_bytes):
        return from_pixels(f"since the frozen layers' output takes {n_bytes / 1e9:.1f} GB, more than the disk has free")

    def built() -> arrays.Store:
        if together.is_first:
            with bar("frozen layers", len(wanted), "view") as advance:
                feed.build(folder, prefix, contract, wanted, advance, warn)
        return arrays.Store(folder, "finetune")

    kept = together.first_then_all(built)
    say(
        f"{what}: from what the frozen {n_frozen} groups gave once, {n_kept} passes through them instead of"
        f" {n_without}, {n_bytes / 1e6:.0f} MB"
    )
    return feed.PrefixFeed(network, parts, kept, prefix.shapes, compiled)


def _as_it_is(module: Any) -> Any:
    return module


def _check_step_0(epoch: Epoch, probe_loss: float, precision: str) -> None:
    apart = abs(epoch.val_log_loss - probe_loss)
    if not apart <= MAX_STEP_0_DIFFERENCE[precision]:
        raise CheckError(
            f"before training PyTorch's log loss on validation is {epoch.val_log_loss:.4f}, and the frozen candidate's"
            f" {probe_loss:.4f}. A difference of at most {MAX_STEP_0_DIFFERENCE[precision]:.0e} was expected. Set"
            " finetune.precision to float32 in params.yaml; if it stays, please report it."
        )


def checked_parity(found: np.ndarray, expected: np.ndarray) -> float:
    """Return how far onnxruntime's features [N, D] are from PyTorch's; CheckError if that is too far."""
    apart = runtime.difference(found, expected).relative
    if not apart <= MAX_RELATIVE_DIFFERENCE:
        raise CheckError(
            f"onnxruntime's features of the tuned backbone differ from PyTorch's by {apart:.1e} of their size on"
            f" {len(found)} validation images. At most {MAX_RELATIVE_DIFFERENCE:.0e} was expected. Nothing was written;"
            " if it stays, please report it."
        )
    return apart


def _write(prepared: Prepared, tuned: Tuned, layout: Layout) -> None:
    """Turn the network into ONNX pieces, hold them to it, and write everything."""
    import torch

    network, setting, val = prepared.network, prepared.setting, prepared.val
    say("exporting the tuned backbone")
    network.eval()
    module = network.backbone.to("cpu", memory_format=torch.contiguous_format)
    program = trace(module, network.preprocessing)
    cut = pieces.to_bytes(backbone_graph(program))
    weight = network.head.weight.detach().cpu().numpy().T / tuned.temperature
    bias = network.head.bias.detach().cpu().numpy() / tuned.temperature
    few = dict(zip(val.image_ids[:_GATE_IMAGES], val.paths[:_GATE_IMAGES], strict=True))
    shown = prepared.views.source(few)
    with torch.inference_mode():
        expected = np.asarray(program.module()(torch.from_numpy(shown)))
    session = runtime.session(cut)
    apart = checked_parity(session.run(None, {"pixels": shown})[0], expected)
    say(f"onnxruntime and PyTorch agree on {len(few)} validation images to {apart:.1e}")
    probe_logits = prepared.probe.val_logits
    probe_loss, probe_temperature = log_loss_and_temperature(probe_logits, val.labels)
    tensors = {f"backbone.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    tensors |= {f"head.{name}": tensor.cpu().numpy() for name, tensor in network.head.state_dict().items()}
    best = tuned.history[tuned.best_epoch]
    with replacing_folder(layout.finetune) as folder:
        (folder / "backbone.onnx").write_bytes(cut)
        told = novelty_of(session, prepared.views.source, prepared.train, val, setting)
        write_safetensors(folder / "head.safetensors", {"weight": weight, "bias": bias, **told.tensors()})
        write_safetensors(folder / "model.safetensors", tensors)
        history = pl.DataFrame(tuned.history, schema=Epoch._fields, orient="row")
        write_csv(folder / "history.csv", history)
        show_table("finetune-epochs", history.to_dicts(), "Training by epoch; validation decides")
        validation = pl.DataFrame(
            {
                "image_id": list(val.image_ids),
                "label": [prepared.classes[label] for label in val.labels],
                "frozen_log_loss": losses_of(probe_logits, val.labels, probe_temperature),
                "tuned_log_loss": losses_of(tuned.val_logits, val.labels, tuned.temperature),
                "frozen_correct": probe_logits.argmax(1) == val.labels,
                "tuned_correct": tuned.val_logits.argmax(1) == val.labels,
                "tuned_probability": softmax(tuned.val_logits / tuned.temperature, axis=1).max(1).astype(np.float32),
            }
        )
        tables.write(folder / "validation.parquet", validation, tables.VALIDATION)
        write_json(
            folder / "finetune.json",
            {
                "enabled": True,
                "best_epoch": best.epoch,
                "n_epochs": tuned.history[-1].epoch,
                "stopped_early": tuned.stopped_early,
                "temperature": round(tuned.temperature, 6),
                "val_log_loss": round(best.val_log_loss, 6),
                "val_accuracy": round(best.val_accuracy, 6),
                "frozen_val_log_loss": round(probe_loss, 6),
                "frozen_val_accuracy": round(tuned.history[0].val_accuracy, 6),
                "n_train": len(prepared.train),
                "n_val": len(val),
                "precision": setting.precision,
                "phases": [phase._asdict() for phase in setting.phases],
                "groups": [group.name for group in network.groups],
                "backbone_onnx_sha256": sha256_of(folder / "backbone.onnx"),
            },
        )
