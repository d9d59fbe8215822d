from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from headstart.base.errors import CheckError
from headstart.heads.calibration import fit_temperature
from headstart.tuning import checkpoint, judge, loss, training
from headstart.tuning.feed import PLAIN, PixelFeed
from headstart.tuning.history import Epoch
from headstart.tuning.loop import Tuned, tune
from headstart.tuning.network import Network
from headstart.tuning.schedule import Phase
from headstart.tuning.training import batches_of
from tests.support.training import images, kept_feed, network, no_bar, pixel_feed, recipe, same, state, views

TRAIN, VAL = images(20), images(9, first=100)


def trained(net: Network, folder: Path, **options: object) -> Tuned:
    return tune(net, TRAIN, VAL, recipe(folder, net, **options), pixel_feed(net), no_bar)


def same_history(one: Tuned, other: Tuned, tolerance: float) -> bool:
    return all(
        np.allclose(a[1:], b[1:], rtol=0, atol=tolerance) if a.train_loss is not None else a[2:] == b[2:]
        for a, b in zip(one.history[1:], other.history[1:], strict=True)
    )


def test_step_0_is_the_probe(tmp_path: Path) -> None:
    net = network()
    net.eval()
    pixels = PixelFeed(net, views(), 0, same)  # type: ignore[arg-type]
    with torch.no_grad():
        features = np.concatenate([pixels.features(b).numpy() for b in pixels.batches(VAL, [np.arange(9)], PLAIN)])
    logits = features.astype(np.float64) @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    tuned = trained(net, tmp_path)
    assert tuned.history[0].epoch == 0
    assert tuned.history[0].train_loss is None
    assert tuned.history[0].val_accuracy == (logits.argmax(1) == VAL.labels).mean()
    log_p = log_softmax(logits / fit_temperature(logits, VAL.labels, caution=1.0), axis=1)
    assert tuned.history[0].val_log_loss == pytest.approx(-log_p[np.arange(9), VAL.labels].mean(), abs=1e-6)


def test_training_that_does_no_good_ends_as_the_probe_to_the_bit(tmp_path: Path) -> None:
    net = network()
    before = state(net)
    spoiling = recipe(tmp_path, net, lr=50.0, optimizer="sgd", clip_norm=100.0, unfreeze=2, warmup_epochs=0.0)
    feed = pixel_feed(net)
    answers = judge.logits_of(net, VAL, spoiling, feed(spoiling.phases[0])).argmax(1)
    tuned = tune(net, TRAIN, dataclasses.replace(VAL, labels=answers), spoiling, feed, no_bar)
    assert tuned.best_epoch == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(net).items())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("train_norms", [False, True])
def test_frozen_means_frozen(optimizer: str, train_norms: bool, tmp_path: Path) -> None:
    """Statistics of batch norms included: not one bit of a group moves before its epoch."""
    net = network(train_norms=train_norms)
    before, seen = state(net), []

    def after_an_epoch(epoch: Epoch, pace: object) -> None:
        seen.append((epoch.epoch, state(net)))

    schedule = {1: 0, 2: 1, 3: 2}
    options = {"unfreeze": schedule, "optimizer": optimizer, "weight_decay": 0.5, "train_norms": train_norms, "lr": 0.1}
    tune(net, TRAIN, VAL, recipe(tmp_path, net, **options), pixel_feed(net), no_bar, after_an_epoch)
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3]
    for epoch, now in seen:
        n_unfrozen = schedule.get(epoch, 0)
        trainable = {f"backbone.{tensor}" for group in net.top(n_unfrozen) for tensor in group.tensors}
        owners = {name.rpartition(".")[0] for name in trainable}
        for name, tensor in now.items():
            is_statistic = "num_batches" in name or "running" in name
            may_move = name.rpartition(".")[0] in owners if is_statistic else name in trainable
            is_frozen = name.startswith("backbone.") and not may_move
            if is_frozen or ("running" in name and not train_norms):
                assert torch.equal(tensor, before[name]), (epoch, name)
        moved = {name for name in trainable if not torch.equal(now[name], before[name])}
        assert moved == trainable
    last = dict(seen)[3]
    assert train_norms == any("running_mean" in name and not torch.equal(last[name], before[name]) for name in last)


def test_training_from_the_kept_prefix_is_training_from_pixels(tmp_path: Path) -> None:
    seen, options = views(), {"views": 2, "epochs": 4, "unfreeze": 2, "lr": 3e-3}
    one, other = network(), network()
    from_pixels = tune(one, TRAIN, VAL, recipe(tmp_path / "a", one, **options), pixel_feed(one), no_bar)

    def kept(phase: Phase) -> object:
        return kept_feed(other, phase, 2, seen, (TRAIN, VAL), tmp_path / "prefix")

    from_prefix = tune(other, TRAIN, VAL, recipe(tmp_path / "b", other, **options), kept, no_bar)  # type: ignore[arg-type]
    assert from_pixels.history[-1].train_loss < 0.9 * from_pixels.history[1].train_loss  # type: ignore[operator]
    assert same_history(from_pixels, from_prefix, 1e-4)


class KilledError(Exception):
    """Takes the place of a signal."""


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "ema_decay": 0.9, "dropout": 0.3, "mixup": 0.2, "cutmix": 0.5},
        {"optimizer": "sgd", "momentum": 0.9, "train_norms": True, "label_smoothing": 0.1, "accumulate": 3},
        {"optimizer": "adamw", "patience": 1, "lr": 0.05, "train_norms": True},
    ],
    ids=["adamw, averaged, mixed", "sgd, norms, accumulated", "stopped early"],
)
def test_killed_after_any_step_it_ends_in_the_same_bytes(
    options: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"unfreeze": {1: 0, 2: 1, 3: 3}, "checkpoint_minutes": 1e-9, "lr": 1e-3, "batch_size": 10} | options
    made_with = {name: options[name] for name in ("dropout", "train_norms") if name in options}
    undisturbed = network(**made_with)
    expected, bytes_of_it = trained(undisturbed, tmp_path / "undisturbed", **options), state(undisturbed)
    real = loss.loss_of

    for deadly in range(0, 3 * len(batches_of(len(TRAIN), 10, 0, 1))):
        n_taken = 0

        def dies(*given: object, last: int = deadly) -> torch.Tensor:
            nonlocal n_taken
            n_taken += 1
            if n_taken > last:
                raise KilledError
            return real(*given)  # type: ignore[arg-type]

        folder = tmp_path / str(deadly)
        monkeypatch.setattr(training, "loss_of", dies)
        first = network(**made_with)
        try:
            trained(first, folder, **options)
        except KilledError:
            monkeypatch.setattr(training, "loss_of", real)
            first = network(**made_with)
            found = trained(first, folder, **options)
            assert found.history == expected.history, deadly
            assert found.temperature == expected.temperature, deadly
            assert np.array_equal(found.val_logits, expected.val_logits), deadly
        assert all(torch.equal(tensor, bytes_of_it[name]) for name, tensor in state(first).items()), deadly
    monkeypatch.setattr(training, "loss_of", real)


def test_a_run_for_something_else_begins_anew(tmp_path: Path) -> None:
    net = network()
    one = recipe(tmp_path, net)
    first = tune(net, TRAIN, VAL, one, pixel_feed(net), no_bar)
    assert one.checkpoint.exists()
    again = network()
    other = dataclasses.replace(one, made_for="another run")
    told: list[int] = []
    tune(again, TRAIN, VAL, other, pixel_feed(again), no_bar, lambda epoch, pace: told.append(epoch.epoch))
    assert told == [0, 1, 2, 3]
    resumed: list[int] = []
    found = tune(
        network(), TRAIN, VAL, other, pixel_feed(again), no_bar, lambda epoch, pace: resumed.append(epoch.epoch)
    )
    assert resumed == []  # it had ended
    assert found.history == first.history


def test_parts_of_a_batch_make_the_gradient_of_the_whole(tmp_path: Path) -> None:
    whole = trained(network(), tmp_path / "whole", unfreeze=2)
    parts = trained(network(), tmp_path / "parts", unfreeze=2, accumulate=4)
    assert same_history(whole, parts, 1e-4)


def test_the_kept_epoch_is_the_best_on_validation(tmp_path: Path) -> None:
    net = network()
    tuned = trained(net, tmp_path, epochs=6, lr=3e-3, unfreeze=3)
    losses = [epoch.val_log_loss for epoch in tuned.history]
    assert tuned.best_epoch == int(np.argmin(losses))
    chosen = recipe(tmp_path, net, epochs=6)
    logits = judge.logits_of(net, VAL, chosen, pixel_feed(net)(chosen.phases[0]))
    assert judge.log_loss_and_temperature(logits, VAL.labels)[0] == pytest.approx(min(losses), abs=1e-6)


def test_it_learns(tmp_path: Path) -> None:
    tuned = trained(network(train_norms=True), tmp_path, epochs=8, lr=3e-3, unfreeze="all", train_norms=True)
    assert tuned.history[-1].train_loss < 0.5 * tuned.history[1].train_loss  # type: ignore[operator]
    assert min(epoch.val_log_loss for epoch in tuned.history) < 0.8 * tuned.history[0].val_log_loss


def test_patience_ends_training(tmp_path: Path) -> None:
    tuned = trained(network(), tmp_path, epochs=9, patience=2, lr=5.0, optimizer="sgd", clip_norm=50.0)
    assert tuned.stopped_early
    assert tuned.history[-1].epoch == tuned.best_epoch + 2 < 9


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_once_and_keeps_the_best(
    poison: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., torch.Tensor] = loss.loss_of
    n_taken = 0

    def poisoned(*given: object) -> torch.Tensor:
        nonlocal n_taken
        n_taken += 1
        return real(*given) * (poison if n_taken == 8 else 1.0)

    monkeypatch.setattr(training, "loss_of", poisoned)
    net = network()
    with pytest.raises(CheckError) as caught:
        trained(net, tmp_path, epochs=4, unfreeze=2)
    message = str(caught.value)
    batch = batches_of(len(TRAIN), 8, 0, 3)[1]
    assert n_taken == 8
    assert "in epoch 3, step 2, at learning rate" in message
    assert f"on {len(batch)} images ({TRAIN.paths[batch[0]]}, {TRAIN.paths[batch[1]]}, " in message
    assert "Set a lower finetune.lr" in message
    assert str(tmp_path / "checkpoint.safetensors") in message
    kept = checkpoint.load(tmp_path / "checkpoint.safetensors", "this run")
    assert kept is not None
    assert kept[1]["epoch"] == 3
    assert any(name.startswith("best/backbone.layer4") for name in kept[0])


def test_batches_hold_every_image_once_in_sizes_that_hardly_differ() -> None:
    for epoch in (1, 2):
        batches = batches_of(33, 8, 0, epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(33))
        assert {len(batch) for batch in batches} == {6, 7}
    assert not np.array_equal(np.concatenate(batches_of(33, 8, 0, 1)), np.concatenate(batches_of(33, 8, 0, 2)))


def test_the_averaged_weights_are_judged_and_kept(tmp_path: Path) -> None:
    plain, averaged = network(), network()
    one = trained(plain, tmp_path / "plain", epochs=3, unfreeze=2)
    other = trained(averaged, tmp_path / "averaged", epochs=3, unfreeze=2, ema_decay=0.5)
    assert one.history[1].train_loss == pytest.approx(other.history[1].train_loss, abs=1e-6)
    assert one.history[1].val_log_loss != other.history[1].val_log_loss


def test_the_loss_is_torchs_with_smoothed_labels(tmp_path: Path) -> None:
    net, chosen = network(), pixel_feed(network())
    feed = chosen(Phase(1, 1, 1))
    (tensors,) = feed.batches(TRAIN, [np.arange(6)], 0)
    smoothed = recipe(tmp_path, net, label_smoothing=0.2)
    with torch.no_grad():
        logits = net.logits(feed.features(tensors))
        found = loss.loss_of(net, feed, tensors, TRAIN.labels[:6], smoothed)
    targets = torch.full((6, 3), 0.2 / 3).scatter_(1, torch.from_numpy(TRAIN.labels[:6])[:, None], 0.8 + 0.2 / 3)
    assert float(found) == pytest.approx(float(-(targets * logits.log_softmax(1)).sum()), rel=1e-5)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixed_images_have_mixed_labels(option: str, tmp_path: Path) -> None:
    net, feed = network(), pixel_feed(network())(Phase(1, 1, 1))
    (tensors,) = feed.batches(TRAIN, [np.arange(6)], 0)
    mixed = recipe(tmp_path, net, **{option: 1.0})
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        with torch.no_grad():
            losses.append(float(loss.loss_of(net, feed, tensors, TRAIN.labels[:6], mixed)))
    plain = float(loss.loss_of(net, feed, tensors, TRAIN.labels[:6], recipe(tmp_path, net)).detach())
    assert losses[0] == losses[1]
    assert len({losses[0], losses[2], plain}) == 3


def test_long_gradients_are_cut_to_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[float] = []
    real = torch.optim.SGD.step

    def measured(self: torch.optim.SGD) -> object:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        lengths.append(float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))))
        return real(self)

    monkeypatch.setattr(torch.optim.SGD, "step", measured)
    trained(network(), tmp_path / "cut", epochs=1, optimizer="sgd", clip_norm=0.01, warmup_epochs=0.0)
    cut = lengths.copy()
    lengths.clear()
    trained(network(), tmp_path / "free", epochs=1, optimizer="sgd", clip_norm=None, warmup_epochs=0.0)
    assert max(cut) <= 0.01001
    assert min(lengths) > 0.02


def test_rates_reach_every_group_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, float]] = []
    real = torch.optim.AdamW.step

    def noted(self: torch.optim.AdamW) -> object:
        seen.append({group["depth"]: group["lr"] for group in self.param_groups})
        return real(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    trained(network(), tmp_path, epochs=2, unfreeze=2, lr=0.1, lr_decay=0.5, warmup_epochs=1.0, batch_size=10)
    assert [rates[0] for rates in seen] == pytest.approx([0.05, 0.1, 0.05, 0.0])
    assert all(rates[depth] == pytest.approx(rates[0] * 0.5**depth) for rates in seen for depth in (1, 2))


def test_bfloat16_learns_what_float32_learns(tmp_path: Path) -> None:
    curves = []
    for precision in ("float32", "bfloat16"):
        net = network()
        chosen = dataclasses.replace(recipe(tmp_path / precision, net, unfreeze=2), precision=precision)
        curves.append([line.val_log_loss for line in tune(net, TRAIN, VAL, chosen, pixel_feed(net), no_bar).history])
    assert np.allclose(*curves, atol=0.05)
    assert curves[0] != curves[1]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: install g++")
def test_compiled_it_computes_the_same(tmp_path: Path) -> None:
    curves = []
    for compiled in (same, torch.compile):
        net = network()
        feed = PixelFeed(net, views(), 0, compiled)  # type: ignore[arg-type]
        tuned = tune(net, TRAIN, VAL, recipe(tmp_path / str(len(curves)), net), lambda phase, f=feed: f, no_bar)  # type: ignore[misc]
        curves.append([line.val_log_loss for line in tuned.history])
    assert np.allclose(*curves, atol=1e-4)
