from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from headstart.tuning.augment import Augmentation, centre
from tests.support.images import photograph

MEAN = (0.485, 0.456, 0.406)


def augmentation(**options: object) -> Augmentation:
    given = {"crop_area": 0.25, "flip": True, "policy": "none", "erasing": 0.0, **options}
    return Augmentation(3, 48, "bicubic", MEAN, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["none", "trivial", "rand"])
def test_a_view_follows_from_seed_draw_and_image_alone(policy: str) -> None:
    pixels, chosen = photograph(1, 64, 64), augmentation(policy=policy, erasing=0.5)
    torch.manual_seed(1)
    one = chosen.view(pixels, "a", 0)
    torch.manual_seed(2)
    chosen.view(photograph(2, 64, 64), "b", 7)
    assert one.shape == (3, 48, 48)
    assert one.dtype == torch.uint8
    assert torch.equal(chosen.view(pixels, "a", 0), one)
    assert torch.equal(augmentation(policy=policy, erasing=0.5).view(pixels, "a", 0), one)
    others = [chosen.view(pixels, "a", 1), chosen.view(pixels, "b", 0), chosen.view(photograph(2, 64, 64), "a", 0)]
    assert not any(torch.equal(other, one) for other in others)


def test_the_global_random_state_stays_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    augmentation(policy="rand", erasing=1.0).view(photograph(1, 64, 64), "a", 0)
    assert torch.equal(torch.get_rng_state(), before)


def _in_another_process(number: int) -> bytes:
    torch.manual_seed(number)
    return augmentation(policy="trivial").view(photograph(number, 64, 64), str(number), 2).numpy().tobytes()


def test_other_processes_see_the_same_views() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_in_another_process, range(3)) == [_in_another_process(number) for number in range(3)]


def test_every_second_view_is_mirrored_only_where_that_is_asked_for() -> None:
    whole = {"crop_area": 1.0, "flip": False}
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None] * 3, 64, 0).repeat(3, 2)
    straight = [augmentation(**whole).view(ramp, "a", draw) for draw in range(40)]
    flipped = [augmentation(**whole | {"flip": True}).view(ramp, "a", draw) for draw in range(40)]
    assert all(int(view[0, 0, -1]) > int(view[0, 0, 0]) for view in straight)
    assert 8 < sum(int(view[0, 0, -1]) < int(view[0, 0, 0]) for view in flipped) < 32


def test_erased_parts_have_the_backbones_mean() -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    view = augmentation(erasing=1.0).view(white, "a", 0)
    erased = view[:, (view != 255).any(0)]
    assert erased.shape[1] > 20
    assert torch.equal(erased, torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None].expand_as(erased))


def test_the_centre_is_torchvisions() -> None:
    pixels = np.stack([photograph(1, 65, 65), photograph(2, 65, 65)])
    expected = functional.center_crop(torch.from_numpy(pixels).permute(0, 3, 1, 2), [48, 48])
    assert torch.equal(centre(pixels, 48), expected)
