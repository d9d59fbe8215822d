"""The loss of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headstart.tuning.feed import Feed, PixelFeed
from headstart.tuning.network import Network, autocast
from headstart.tuning.recipe import Recipe

if TYPE_CHECKING:
    import torch


def loss_of(
    network: Network, feed: Feed, tensors: tuple[torch.Tensor, ...], labels: np.ndarray, recipe: Recipe
) -> torch.Tensor:
    """Return the summed loss of a batch, in the recipe's precision."""
    import torch
    from torch.nn.functional import cross_entropy

    settings, targets = recipe.params, torch.from_numpy(labels).to(network.device)
    with autocast(network.device, recipe.precision):
        if settings.mixup or settings.cutmix:
            features, targets = _mixed_features(network, feed, tensors, targets, recipe)
        else:
            features = feed.features(tensors)
        logits = network.logits(features).float()
    loss: torch.Tensor = cross_entropy(logits, targets, reduction="sum", label_smoothing=settings.label_smoothing)
    return loss


def _mixed_features(
    network: Network, feed: Feed, tensors: tuple[torch.Tensor, ...], labels: torch.Tensor, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the features of mixed images and their targets [B, C] (Zhang et al. 2018; Yun et al. 2019)."""
    from torchvision.transforms import v2

    settings, mixers = recipe.params, []
    if settings.mixup:
        mixers.append(v2.MixUp(alpha=settings.mixup, num_classes=recipe.n_classes))
    if settings.cutmix:
        mixers.append(v2.CutMix(alpha=settings.cutmix, num_classes=recipe.n_classes))
    images, targets = v2.RandomChoice(mixers)(network.normalised(tensors[0]), labels)
    assert isinstance(feed, PixelFeed)  # mixing excludes finetune.views
    features: torch.Tensor = feed.whole(images)
    return features, targets
