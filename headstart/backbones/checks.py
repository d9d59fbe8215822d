"""What a backbone can be asked before any data are there: whether it gets the images that its weights want.

Wrong preprocessing raises no error; it costs accuracy. Three things tell: batch norms know the statistics of their
inputs in training; a classifier knows what is on a photograph; and features that are all alike serve no head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.levels import Level
from headstart.backbones.preprocessing import Preprocessing
from headstart.onnx import runtime

if TYPE_CHECKING:
    import torch

    from headstart.backbones.networks import Backbone

PALACE, _N_BEST = 698, 5  # ImageNet's class of the photograph china.jpg; its place among 1000 that is good enough
MAX_VARIANCE_RATIO = 2.5  # 1.2 to 1.4 with the right preprocessing, 3.1 and more with that of another network
N_CROPS = 32  # of the photographs, that features are looked at on
_SMALLEST_CROP = 0.3  # of the shorter side
_MAX_SIZE = 1e4  # root mean square of a level
_MIN_SPREAD = 1e-3  # a feature that varies less, as a share of its size, is the same for all images
_MIN_RANK_SHARE = 0.1
_SINGULAR = 1e-2  # a singular value below this share of the largest counts as none
_USUAL = {"ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "0.5": ((0.5,) * 3, (0.5,) * 3)}


class _SeenError(Exception):
    """Ends a forward pass after the layer that was asked for."""


def of_network(backbone: Backbone, pixels: np.ndarray) -> list[str]:
    """Return warnings about a pretrained network's preprocessing.

    `pixels`: uint8 [N, S, S, 3], what `resize.onnx` makes of `export.photographs`, the palace first.
    """
    found = []
    own = backbone.preprocessing
    ratio = variance_ratio(backbone.module, pixels, own)
    if ratio is not None and not 1 / MAX_VARIANCE_RATIO <= ratio <= MAX_VARIANCE_RATIO:
        found.append(
            f"photographs reach the first batch norm of {backbone.name} with {ratio:.2g} times the variance that it saw"
            f" in training; 1 is right, {1 / MAX_VARIANCE_RATIO:.1f} to {MAX_VARIANCE_RATIO} usual."
            f"{_better(backbone, pixels, own)} Compare backbone.mean and backbone.std in params.yaml with what the"
            " weights were trained with"
        )
    rank = rank_of_palace(backbone, pixels)
    if rank is not None and rank > _N_BEST:
        found.append(
            f"the classifier of {backbone.name} does not know a photograph of a palace: that class is number {rank} of"
            f" 1000 in its answer, where 1 to {_N_BEST} was expected. Compare the preprocessing in the section backbone"
            " of params.yaml with what the weights were trained with"
        )
    return found


def _better(backbone: Backbone, pixels: np.ndarray, own: Preprocessing) -> str:
    """Return which usual mean and std would fit, in a sentence."""
    from dataclasses import replace

    ratios = {
        name: variance_ratio(backbone.module, pixels, replace(own, mean=mean, std=std))
        for name, (mean, std) in _USUAL.items()
    }
    name, ratio = min(ratios.items(), key=lambda each: abs(np.log(each[1] or np.inf)))
    is_usual = ratio is not None and 1 / MAX_VARIANCE_RATIO <= ratio <= MAX_VARIANCE_RATIO
    return f" With {name} mean and std it would be {ratio:.2g}." if is_usual else ""


def variance_ratio(module: torch.nn.Module, pixels: np.ndarray, settings: Preprocessing) -> float | None:
    """Return how the variance of the first batch norm's inputs compares with its training; None if there is none.

    The median of the channels, without those that are dead.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    ratios: list[float] = []

    def look(norm: Any, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        seen = inputs[0].transpose(0, 1).flatten(1).var(1)
        alive = norm.running_var > _MIN_SPREAD * norm.running_var.max()
        ratios.append(float((seen / norm.running_var)[alive].median()))
        raise _SeenError

    hooks = [
        layer.register_forward_hook(look)
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_var is not None
    ]
    try:
        with torch.inference_mode():
            module(prepared(pixels, settings))
    except _SeenError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return ratios[0] if hooks and ratios else None


def rank_of_palace(backbone: Backbone, pixels: np.ndarray) -> int | None:
    """Return which place its class has in the answer to the first photograph; None without a classifier."""
    import torch

    if backbone.classifier is None:
        return None
    with torch.inference_mode():
        features = backbone.module(prepared(pixels[:1], backbone.preprocessing))
        if features.shape[1] != backbone.classifier.in_features:
            return None
        scores = backbone.classifier(features)[0]
    return int((scores > scores[PALACE]).sum()) + 1


def prepared(pixels: np.ndarray, settings: Preprocessing) -> torch.Tensor:
    """Return float [N, 3, I, I] of uint8 [N, S, S, 3], with torchvision's own crop and normalisation."""
    import torch
    from torchvision.transforms.v2 import functional

    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    images = functional.center_crop(images, [settings.input_px, settings.input_px]).float() / 255
    normalised: torch.Tensor = functional.normalize(images, list(settings.mean), list(settings.std))
    return normalised


def crops(photographs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return `N_CROPS` drawn squares of photographs, uint8 [H, H, 3], the same every time."""
    random, found = np.random.default_rng(0), []
    for number in range(N_CROPS):
        image = photographs[number % len(photographs)]
        side = round(random.uniform(_SMALLEST_CROP, 1) * min(image.shape[:2]))
        top, left = (int(random.integers(0, length - side + 1)) for length in image.shape[:2])
        found.append(np.ascontiguousarray(image[top : top + side, left : left + side]))
    return found


def of_features(
    resize: bytes, backbone: bytes, levels: Sequence[Level], photographs: Sequence[np.ndarray]
) -> list[str]:
    """Return warnings about levels whose features on drawn squares of photographs are too large or too much alike."""
    resizer, network = runtime.session(resize), runtime.session(backbone)
    pixels = [resizer.run(None, {"image": image[None]})[0] for image in crops(photographs)]
    rows = [network.run(None, {"pixels": one})[0] for one in pixels]
    ends = np.cumsum([level.width for level in levels])[:-1]
    each = np.split(np.concatenate(rows).astype(np.float64), ends, axis=1)
    return [said for level, values in zip(levels, each, strict=True) for said in oddities(level.name, values)]


def oddities(name: str, features: np.ndarray) -> list[str]:
    """Return what is odd about the features of one level, float [N, D]: at most one warning."""
    size = float(np.sqrt(np.mean(features**2)))
    where = f"the features of the level '{name}' on {len(features)} pieces of photographs"
    todo = "Heads will gain little from them; look at the weights and their preprocessing"
    if not size <= _MAX_SIZE:
        return [f"{where} have a root mean square of {size:.1e}; at most {_MAX_SIZE:.0e} was expected. {todo}"]
    spread = features.std(axis=0)
    n_same = int((spread <= _MIN_SPREAD * np.abs(features).max(axis=0)).sum())
    if 2 * n_same > features.shape[1]:
        return [
            f"{n_same} of {features.shape[1]} of {where} are the same for all; fewer than half were expected. {todo}"
        ]
    singular = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    rank, most = int((singular > _SINGULAR * singular[0]).sum()), min(features.shape)
    if rank < _MIN_RANK_SHARE * most:
        return [f"{where} vary in {rank} of {most} directions; a tenth of them or more was expected. {todo}"]
    return []
