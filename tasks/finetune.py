"""Fine-tune the backbone's last layers, starting from the linear probe; the result is a second candidate.

Reads the pixels, the features, the head's strength and the backbone; writes artifacts/finetune/. The head that ships is
fitted on train and val. Here a head is fitted on train alone, so that validation can judge fine-tuning. Nothing here
reads the test split. A network that was trained from the same inputs, with the same parameters and `VERSION`, is taken
from the cache of this machine. Without finetune.enabled, the stage is off and imports nothing that training would need.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from headstart.base import disk
from headstart.base.errors import CheckError
from headstart.base.progress import bar, say
from headstart.onnx import backbone_folder, finetune_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headstart.layout import Layout
    from headstart.params import Params
    from headstart.tuning.history import Epoch, Pace

_MAX_STEP_0_DIFFERENCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}  # of the log loss, in nats per image


def run(params: Params, layout: Layout) -> None:
    """Train, export and write the network, take one from the cache, or write that fine-tuning is off."""
    settings = params.finetune
    if not settings.enabled:
        finetune_folder.write_off(layout.finetune)
        return

    from headstart.tuning import outcome
    from headstart.tuning.judge import log_loss_and_temperature
    from headstart.tuning.loop import tune
    from headstart.tuning.plan import plan

    n_bytes = backbone_folder.piece(layout.backbone, backbone_folder.BACKBONE).stat().st_size
    disk.check_room(layout.finetune, 3 * n_bytes, "the tuned network in two forms and its checkpoint")
    planned = plan(params, settings, layout)
    recipe, val = planned.recipe, planned.val

    def is_there(folder: Path) -> bool:
        return outcome.is_there(folder, recipe.made_for)

    def found() -> bool:
        if recipe.processes.is_first and not is_there(layout.finetune):
            layout.cache.take("finetune", recipe.made_for, layout.finetune, is_there)
        return is_there(layout.finetune)

    if recipe.processes.first_then_all(found):
        say("a network was trained from the same inputs and parameters before: it is taken from the cache")
        return
    probe_loss, _ = log_loss_and_temperature(planned.probe_logits, val.labels)

    def report(epoch: Epoch, pace: Pace | None) -> None:
        if epoch.epoch == 0:
            check_step_0(epoch, probe_loss, recipe.precision)
        say(line_of(epoch, pace, settings.epochs))

    def training(n_images: int) -> AbstractContextManager[Callable[[int], None]]:
        return bar("training", n_images, "image")

    tuned = tune(planned.network, planned.train, val, recipe, planned.feed_of, training, report)
    if not recipe.processes.is_first:
        recipe.processes.wait()  # until the first one has written
        return
    if tuned.stopped_early:
        say(f"no better epoch within {settings.patience} epochs: stopped after epoch {tuned.history[-1].epoch}")
    record = outcome.write(planned, tuned, layout.finetune)
    layout.cache.put("finetune", recipe.made_for, layout.finetune)
    recipe.checkpoint.unlink(missing_ok=True)
    recipe.processes.wait()
    say(
        f"the best epoch is {record.best_epoch}: log loss {record.val_log_loss:.4f} and accuracy"
        f" {record.val_accuracy:.2%} on {len(val)} validation images, against {record.frozen_val_log_loss:.4f} and"
        f" {record.frozen_val_accuracy:.2%} for the frozen backbone"
    )


def find_lr(params: Params, layout: Layout) -> None:
    """Run the range test, write its plot and its points to artifacts/tuning/, and report the proposed rate."""
    import polars as pl

    from headstart.base.files import write_csv
    from headstart.tuning.lr_range import N_STEPS, Point, plot, proposal, range_test
    from headstart.tuning.plan import plan
    from headstart.tuning.schedule import Phase

    settings = params.finetune.model_copy(update={"enabled": True, "devices": 1, "hosts": 1})
    planned = plan(params, settings, layout)
    chosen = planned.feed_of(Phase(1, settings.epochs, planned.recipe.phases[-1].n_unfrozen))
    with bar("learning rates", N_STEPS, "step") as advance:
        points = range_test(planned.network, planned.train, planned.recipe, chosen, advance)
    proposed = proposal(points)
    layout.tuning.mkdir(parents=True, exist_ok=True)
    write_csv(layout.tuning / "lr_range.csv", pl.DataFrame(points, schema=Point._fields, orient="row"))
    plot(points, proposed, layout.tuning / "lr_range.svg")
    say(
        f"finetune.lr={proposed:g} is proposed, a tenth of the rate with the lowest loss:"
        f" {layout.tuning / 'lr_range.svg'}"
    )


def line_of(epoch: Epoch, pace: Pace | None, n_epochs: int) -> str:
    """Return the log line of an epoch."""
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


def check_step_0(epoch: Epoch, probe_loss: float, precision: str) -> None:
    """Raise CheckError if the network before training differs from the linear head that it starts from."""
    apart, allowed = abs(epoch.val_log_loss - probe_loss), _MAX_STEP_0_DIFFERENCE[precision]
    if not apart <= allowed:
        raise CheckError(
            f"before training, the network's log loss on validation is {epoch.val_log_loss:.4f}, but that"
            f" of the head that it starts from is {probe_loss:.4f}. A difference of at most {allowed:.0e} was expected."
            " Set finetune.precision to float32 in params.yaml; please report this if it happens again."
        )
