from __future__ import annotations

import pytest
import torch

from headstart.backbones.groups import layer_groups
from headstart.backbones.levels import Level, extractor
from headstart.onnx.backbone_folder import LAST
from headstart.tuning.cut import NoCutError, cut
from tests.support.training import backbone

NETWORKS = ["torchvision/resnet18", "torchvision/shufflenet_v2_x0_5", "timm/test_efficientnet", "timm/convnext_atto"]
NETWORKS += ["timm/vit_tiny_patch16_224"]
MORE = ["torchvision/densenet121", "torchvision/vit_b_16", "torchvision/swin_t", "torchvision/mobilenet_v2"]
MORE += [
    "torchvision/googlenet",
    "torchvision/regnet_y_400mf",
    "timm/tf_efficientnet_lite0",
    "timm/xcit_nano_12_p8_224",
]
MORE += [
    "timm/vit_small_patch16_dinov3",
    "timm/swin_tiny_patch4_window7_224",
    "timm/hrnet_w18_small",
    "timm/levit_128s",
]


ONLY_LAST = [Level(LAST, 4, "none")]


def batch(n_images: int, input_px: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_images, 3, input_px, input_px, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_the_two_parts_compute_what_the_whole_computes(name: str) -> None:
    loaded = backbone(name, 64)
    module, groups = loaded.extractor(), layer_groups(loaded.module)
    for n_unfrozen in (0, 1, 2, len(groups) - 1):
        trained = groups[len(groups) - n_unfrozen :]
        parts = cut(module, trained, (batch(2, 64), batch(3, 64, 1)))
        images = batch(4, 64, 2)
        with torch.no_grad():
            kept = parts.prefix(images)
            assert torch.allclose(parts.suffix(*kept), module(images), rtol=1e-4, atol=1e-5)
        assert all(len(value) == 4 for value in kept)
        below = {id(parameter) for parameter in parts.prefix.parameters()}
        named = dict(loaded.module.named_parameters())
        assert not below & {id(named[tensor]) for group in trained for tensor in group.tensors}


def test_the_lower_the_cut_the_less_is_frozen() -> None:
    loaded = backbone("torchvision/resnet18", 64)
    module, groups = loaded.extractor(), layer_groups(loaded.module)
    sizes = []
    for n_unfrozen in range(len(groups)):
        parts = cut(module, groups[len(groups) - n_unfrozen :], (batch(2, 64), batch(3, 64)))
        sizes.append(sum(parameter.numel() for parameter in parts.prefix.parameters()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(group.n_parameters for group in groups)
    assert sizes[-1] == groups[0].n_parameters


class Branching(torch.nn.Module):
    """A network whose code depends on the values of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.one(images)
        if images.sum() > 0:
            images = -images
        two: torch.Tensor = self.two(images)
        return two


def test_a_network_that_cannot_be_traced_is_told() -> None:
    module = extractor(Branching(), ONLY_LAST)
    with pytest.raises(NoCutError, match="it cannot be traced"):
        cut(module, layer_groups(module.network)[1:], (torch.randn(2, 4), torch.randn(3, 4)))


class Mixing(torch.nn.Module):
    """A network that hands the size of its batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        n_images = images.shape[0]
        two: torch.Tensor = self.two(self.one(images)).reshape(n_images, 4)
        return two


def test_a_cut_that_something_else_than_rows_crosses_is_told() -> None:
    module = extractor(Mixing(), ONLY_LAST)
    with pytest.raises(NoCutError, match="something other than one row per image"):
        cut(module, layer_groups(module.network)[1:], (torch.randn(2, 4), torch.randn(3, 4)))
