from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.store.cache import Cache
from headstart.store.row_cache import RowCache
from headstart.store.shards import Contract
from headstart.tuning import feed
from headstart.tuning.feed import PLAIN, PixelFeed, Shapes
from headstart.tuning.loss import loss_of
from headstart.tuning.network import Network
from headstart.tuning.schedule import Phase
from tests.support.training import images, kept_feed, network, prefix, recipe, same, views

NETWORKS = ["timm/test_resnet", "timm/test_efficientnet", "timm/vit_tiny_patch16_224"]


def gradients(net: Network, chosen: feed.Feed, n_unfrozen: int, folder: Path) -> dict[str, torch.Tensor]:
    """Return the gradients of one step on one batch."""
    net.unfreeze(n_unfrozen)
    some, rows = images(12), np.array([3, 7, 1, 10, 4])
    (tensors,) = chosen.batches(some, [rows], 1)
    parameters = net.parameters(n_unfrozen)
    for parameter in parameters.values():
        parameter.grad = None
    loss_of(net, chosen, tensors, some.labels[rows], recipe(folder, net, unfreeze=n_unfrozen)).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad.clone() for name, parameter in parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n_unfrozen", [0, 1, 2])
def test_a_step_from_the_kept_prefix_has_the_gradients_of_a_step_from_pixels(
    name: str, n_unfrozen: int, tmp_path: Path
) -> None:
    net, seen = network(name, train_norms=True), views()
    from_pixels = gradients(net, PixelFeed(net, seen, 0, same), n_unfrozen, tmp_path)  # type: ignore[arg-type]
    for module in net.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()  # both steps begin with the same
    kept = kept_feed(net, Phase(1, 4, n_unfrozen), 2, seen, (images(12),), tmp_path / "prefix")
    from_prefix = gradients(net, kept, n_unfrozen, tmp_path)
    assert from_pixels.keys() == from_prefix.keys()
    for name_of, gradient in from_pixels.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((from_prefix[name_of] - gradient).abs().max()) <= 1e-5 * scale, name_of


def test_workers_see_what_one_process_sees() -> None:
    net, some = network(), images(10)
    rows = np.array_split(np.arange(10)[::-1], 3)
    alone, helped = (
        list(PixelFeed(net, views(policy="trivial"), n_workers, same).batches(some, rows, 3))  # type: ignore[arg-type]
        for n_workers in (0, 2)
    )
    assert all(torch.equal(one, other) for (one,), (other,) in zip(alone, helped, strict=True))


def test_epochs_take_turns_with_the_views() -> None:
    assert [feed.draw_of(epoch, 3) for epoch in range(1, 8)] == [0, 1, 2, 0, 1, 2, 0]
    assert [feed.draw_of(epoch, 0) for epoch in range(1, 5)] == [0, 1, 2, 3]
    assert feed.draws_of(Phase(3, 4, 1), 3) == [0, 2]
    assert feed.draws_of(Phase(3, 9, 1), 3) == [0, 1, 2]


def test_keeping_costs_a_pass_a_view_and_doing_without_a_pass_an_epoch() -> None:
    assert feed.n_prefix_passes(Phase(1, 10, 1), 4, 100, 20) == (420, 1200)
    assert feed.n_prefix_passes(Phase(9, 10, 1), 4, 100, 20) == (220, 240)
    assert feed.n_prefix_passes(Phase(10, 10, 1), 4, 100, 20) == (120, 120)


def test_what_is_kept_of_an_image_does_not_depend_on_the_images_beside_it(tmp_path: Path) -> None:
    net, seen, some = network(), views(), images(40)
    phase = Phase(1, 4, 2)
    kept_feed(net, phase, 2, seen, (images(7),), tmp_path / "grown")
    grown = kept_feed(net, phase, 2, seen, (some,), tmp_path / "grown")
    at_once = kept_feed(net, phase, 2, seen, (some,), tmp_path / "at once")
    for draw in (0, 1, PLAIN):
        one, other = (next(each.batches(some, [np.arange(40)], draw)) for each in (grown, at_once))
        assert all(map(torch.equal, one, other))


def test_rows_hold_every_tensor_that_crosses_the_cut() -> None:
    tensors = (torch.randn(3, 4, 5, 6), torch.randn(3, 7), torch.randn(3, 8, 9))
    shapes = Shapes(((4, 5, 6), (7,), (8, 9)))
    unpacked = shapes.unpacked(shapes.packed(tensors, "float32"))
    assert shapes.n_values == 120 + 7 + 72
    assert all(torch.equal(one, other) for one, other in zip(tensors, unpacked, strict=True))
    assert unpacked[0].is_contiguous(memory_format=torch.channels_last)


def test_other_weights_or_views_or_another_cut_have_another_contract() -> None:
    net = network()
    contracts = [
        prefix(net, 1, views()).contract(4, weights="a"),
        prefix(net, 1, views()).contract(4, weights="b"),
        prefix(net, 1, views(policy="rand")).contract(4, weights="a"),
        prefix(net, 2, views()).contract(3, weights="a"),
    ]
    assert len({contract.fingerprint for contract in contracts}) == 4


def test_validation_images_are_kept_as_they_are(tmp_path: Path) -> None:
    net, some = network(), images(5)
    kept = kept_feed(net, Phase(1, 4, 1), 2, views(), (some,), tmp_path / "prefix")
    net.eval()
    rows = [np.arange(5)]
    with torch.no_grad():
        (from_prefix,) = (kept.features(tensors) for tensors in kept.batches(some, rows, PLAIN))
        pixels = PixelFeed(net, views(), 0, same)  # type: ignore[arg-type]
        (from_pixels,) = (pixels.features(tensors) for tensors in pixels.batches(some, rows, PLAIN))
    assert torch.allclose(from_prefix, from_pixels, atol=1e-5)


def test_values_that_half_precision_cannot_hold_are_told(tmp_path: Path) -> None:
    net, seen = network(), views()
    small = prefix(net, 1, seen)
    with torch.no_grad():
        for parameter in net.backbone.get_submodule("layer3").parameters():
            parameter.fill_(1e5)
    wanted = dict([feed.wanted_view("0" * 64, "a.png", 0)])
    half = feed.Prefix(net, small.parts, seen, small.shapes, "float16", small.autocast)
    contract = Contract("f", (small.shapes.n_values,), "float16")
    with pytest.raises(feed.CheckError, match="output does not fit into float16"):
        feed.fill(RowCache(Cache.of(tmp_path, 1), "frozen-layers", contract), half, wanted, lambda n: None)
