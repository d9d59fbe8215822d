from __future__ import annotations

import pytest

from headstart.backbones.groups import layer_groups
from tests.support.training import backbone

NETWORKS = [
    ("torchvision/resnet18", 9, "layer4.1"),
    ("torchvision/squeezenet1_1", 9, "features.12"),
    ("torchvision/shufflenet_v2_x0_5", 18, "conv5.0"),
    ("torchvision/mobilenet_v3_small", 14, "classifier.0"),
    ("torchvision/mnasnet0_5", 18, "layers.14"),
    ("timm/tf_efficientnet_lite0", 17, "blocks.6.0"),
    ("timm/convnext_atto", 13, "stages.3.blocks.1"),
    ("timm/test_resnet", 5, "layer4.0"),
    ("timm/test_efficientnet", 6, "blocks.4.0"),
]


@pytest.mark.parametrize(("name", "n_groups", "last"), NETWORKS)
def test_every_parameter_is_in_one_group_from_the_stem_to_the_last_block(name: str, n_groups: int, last: str) -> None:
    module = backbone(name, 64).module
    groups = layer_groups(module)
    assert len(groups) == n_groups
    assert groups[0].name == "stem"
    assert groups[-1].name == last
    assert len({group.name for group in groups}) == n_groups
    tensors = [tensor for group in groups for tensor in group.tensors]
    assert sorted(tensors) == sorted(name for name, _ in module.named_parameters())
    assert sum(group.n_parameters for group in groups) == sum(p.numel() for p in module.parameters())


def test_groups_follow_the_flow_of_an_image() -> None:
    names = [group.name for group in layer_groups(backbone("torchvision/resnet18", 64).module)]
    assert names == ["stem", *(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))]


def test_a_last_normalisation_is_no_group_of_its_own() -> None:
    last = layer_groups(backbone("timm/convnext_atto", 64).module)[-1]
    assert "head.norm.weight" in last.tensors
    assert last.n_parameters > 100_000
