from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from headstart.tuning.network import optimiser_groups
from tests.support.training import images, network, source


def test_the_probes_answers_are_the_networks() -> None:
    net = network()
    pixels = torch.from_numpy(source(dict.fromkeys(images(6).image_ids, ""))).permute(0, 3, 1, 2)[:, :, 4:68, 4:68]
    net.eval()
    with torch.no_grad():
        features = net.extractor(net.normalised(pixels))
        logits = net.logits(features)
    expected = features.numpy() @ net.head.weight.detach().numpy().T + net.head.bias.detach().numpy()
    assert np.allclose(logits.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("train_norms", [False, True])
def test_what_is_frozen_runs_as_in_evaluation_and_the_rest_as_in_training(train_norms: bool) -> None:
    net = network(train_norms=train_norms)
    for n_groups in range(len(net.groups) + 1):
        net.unfreeze(n_groups)
        trained = {tensor for group in net.top(n_groups) for tensor in group.tensors}
        assert {name for name, p in net.backbone.named_parameters() if p.requires_grad} == trained
        for path, module in net.backbone.named_modules():
            if isinstance(module, _BatchNorm):
                assert module.training == (train_norms and f"{path}.weight" in trained), path
        assert net.n_trainable == sum(map(torch.numel, net.parameters(n_groups).values()))


def test_the_surroundings_cannot_put_frozen_layers_into_training_mode_unnoticed() -> None:
    net = network()
    net.backbone.train()
    net.unfreeze(1)
    assert not net.backbone.get_submodule("layer1").training
    assert net.backbone.get_submodule("layer4").training


def test_weights_decay_but_norms_and_biases_do_not() -> None:
    net = network()
    groups = optimiser_groups(net, 2, 0.1)
    named = {id(parameter): name for name, parameter in net.parameters(2).items()}
    seen = []
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            assert (group["weight_decay"] == 0.1) == (parameter.ndim > 1), named[id(parameter)]
            seen.append(named[id(parameter)])
    assert sorted(seen) == sorted(named.values())
    assert {group["depth"] for group in groups} == {0, 1, 2}
    assert all(group["depth"] == 0 for group in groups for p in group["params"] if named[id(p)].startswith("head"))  # type: ignore[attr-defined]
