"""Judges the network on images without augmentation: logits, calibrated log loss, and the scale of novelty."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from headstart.base.dataset import Images
from headstart.base.progress import bar
from headstart.heads import novelty
from headstart.heads.calibration import CAUTION, Calibration, by_fold, calibrate, fit_temperature, losses
from headstart.heads.folds import draw
from headstart.heads.novelty import Novelty
from headstart.tuning.feed import PLAIN, Feed
from headstart.tuning.network import Network, autocast

if TYPE_CHECKING:
    import onnxruntime

    from headstart.embedding.pixels import Source
    from headstart.tuning.recipe import Recipe

_MAX_NOVELTY_IMAGES = 2000  # of train, some of every class; they cost a fraction of an epoch
_BATCH_IMAGES = 32
_FOLDS = 5  # of the validation images, to try the temperature on others than those that it was fitted on


def logits_of(network: Network, images: Images, recipe: Recipe, feed: Feed) -> np.ndarray:
    """Return logits, float64 [N, C], the same in every process. It leaves the network in evaluation mode."""
    import torch

    network.eval()
    processes, size = recipe.processes, recipe.params.batch_size
    own = processes.share(np.arange(len(images)))
    rows = [own[start : start + size] for start in range(0, len(own), size)]
    logits = torch.zeros(len(images), recipe.n_classes, device=network.device)
    with torch.no_grad(), autocast(processes.device, recipe.precision):
        for part, tensors in zip(rows, feed.batches(images, rows, PLAIN), strict=True):
            logits[torch.from_numpy(part).to(network.device)] = network.logits(feed.features(tensors)).float()
    processes.sum_([logits])
    return logits.cpu().numpy().astype(np.float64)


def log_loss_and_temperature(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the calibrated log loss of float64 [N, C] in nats per image, inf if not finite, and the temperature."""
    if not np.isfinite(logits).all():
        return math.inf, 1.0
    temperature = fit_temperature(logits, labels, CAUTION)
    return float(losses(logits / temperature, labels).mean()), temperature


def calibration_of(logits: np.ndarray, val: Images) -> Calibration:
    """Return the calibration of float64 [N, C], the logits of `val`; groups stay whole where it is tried."""
    _, group_of = np.unique(val.groups, return_inverse=True)
    return calibrate(logits, val.labels, by_fold(logits, val.labels, group_of % _FOLDS))


def novelty_of(
    session: onnxruntime.InferenceSession, source: Source, train: Images, val: Images, recipe: Recipe
) -> Novelty:
    """Return the `Novelty`: class centres from train (a sample if large), scale from val, features by `session`."""
    some = draw(train.labels, np.arange(len(train)), _MAX_NOVELTY_IMAGES, recipe.params.seed)
    ids = [train.image_ids[row] for row in some] + list(val.image_ids)
    paths = [train.paths[row] for row in some] + list(val.paths)
    features = []
    with bar("novelty", len(ids), "image") as advance:
        for first in range(0, len(ids), _BATCH_IMAGES):
            batch = slice(first, first + _BATCH_IMAGES)
            wanted = dict(zip(ids[batch], paths[batch], strict=True))
            features.append(session.run(None, {"pixels": source(wanted)})[0])
            advance(len(wanted))
    labels = np.concatenate([train.labels[some], val.labels])
    fold_of = np.repeat([-1, 0], [len(some), len(val)])
    return novelty.fit(np.concatenate(features), labels, recipe.n_classes, fold_of)
