from __future__ import annotations

import threading

import pytest
import torch

from headstart.backbones.levels import Level, extractor, levels_of
from headstart.onnx.backbone_folder import LAST
from tests.support.training import backbone

NETWORKS = {
    "torchvision/resnet18": [("layer1.1", 64), ("layer2.1", 128), ("layer3.1", 256), (LAST, 512)],
    "timm/tf_efficientnet_lite0": [
        ("blocks.0.0", 16),
        ("blocks.1.1", 24),
        ("blocks.2.1", 40),
        ("blocks.3.2", 80),
        ("blocks.4.2", 112),
        ("blocks.5.3", 192),
        ("blocks.6.0", 320),
        (LAST, 1280),
    ],
    "timm/vit_tiny_patch16_224": [
        ("blocks.2", 384),
        ("blocks.5", 384),
        ("blocks.8", 384),
        ("blocks.11", 384),
        (LAST, 192),
    ],
}


def images(n_images: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_images, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_levels_are_the_ends_of_stages_and_the_last_features(name: str) -> None:
    assert [(level.name, level.width) for level in levels_of(backbone(name, 64).module, 64)] == NETWORKS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_level_is_the_average_of_its_modules_output_over_positions(name: str) -> None:
    loaded = backbone(name, 64)
    seen: list[torch.Tensor] = []
    middle = loaded.levels[1]
    loaded.module.get_submodule(middle.name).register_forward_hook(lambda *given: seen.append(given[-1]))
    with torch.no_grad():
        found = loaded.extractor()(images(2))
        last = loaded.module(images(2))
    start = loaded.levels[0].width
    output = seen[0]
    expected = output.flatten(2).mean(2) if output.ndim == 4 else torch.cat([output[:, 0], output[:, 1:].mean(1)], 1)
    assert torch.allclose(found[:, start : start + middle.width], expected, atol=1e-5)
    assert torch.allclose(found[:, -loaded.levels[-1].width :], last, atol=1e-5)


def test_a_network_without_stages_has_its_last_features_alone() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    assert levels_of(net, 8) == [Level(LAST, 5, "none")]
    given = torch.randn(2, 3, 8, 8)
    assert torch.equal(extractor(net, levels_of(net, 8))(given), net(given))


def test_threads_do_not_take_each_others_levels() -> None:
    gives = backbone("torchvision/resnet18", 64).extractor()
    with torch.no_grad():
        expected = [gives(images(1, seed)) for seed in range(8)]
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for _ in range(20):
            with torch.no_grad():
                if not torch.allclose(gives(images(1, seed)), expected[seed], atol=1e-5):
                    wrong.append(seed)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
