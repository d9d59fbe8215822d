"""The levels of a network: what its stages know on the way to the last features, averaged over positions.

A forward pass computes all of them anyway. Heads that may read every level come close to fine-tuning at a hundredth of
its cost (Evci et al. 2022, "Head2Toe"): the last layer has thrown away what its own task did not need.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from math import isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from headstart.backbones.groups import layer_groups
from headstart.onnx.backbone_folder import LAST, Pooling

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

MAX_LEVELS = 8  # beside them; what is more is thinned out
_FEW = 3  # below it, levels are taken at even distances instead
_EVENLY = 4


class Level(NamedTuple):
    """Features of one depth: a module's output, or the network's own."""

    name: str  # the module's path, such as 'blocks.3.2', or 'last'
    width: int  # numbers an image
    pooling: Pooling


def levels_of(module: nn.Module, input_px: int) -> list[Level]:
    """Return the levels of a frozen network, the one nearest to the input first, and its usual features as the last.

    A level is the last layer group before the shape of the output changes: a stage, in most networks. Where that gives
    more than `MAX_LEVELS`, only changes of height and width count; where it gives fewer than three, as in a vision
    transformer, four groups at even distances are taken. A group whose average is the last features is no level.
    """
    import torch

    images = torch.randn(2, 3, input_px, input_px, generator=torch.Generator().manual_seed(0))
    paths = dict(module.named_modules())
    names = [group.name for group in layer_groups(module) if group.name in paths]
    with torch.no_grad(), watched(module, names) as seen:
        last = module(images)
    found = [(name, seen[name][0]) for name in names if len(seen[name]) == 1 and _is_usable(seen[name][0])]
    tokens = _n_class_tokens(module)
    levels = []
    for number in _chosen([tuple(value.shape[1:]) for _, value in found]):
        name, value = found[number]
        pooling = pooling_of(tuple(value.shape), tokens)
        pooled = pool(value, pooling)
        if pooled.shape != last.shape or not torch.allclose(pooled, last, rtol=1e-4, atol=1e-5):
            levels.append(Level(name, pooled.shape[1], pooling))
    return [*levels, Level(LAST, last.shape[1], "none")]


def _chosen(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    """Return which of the groups, by the shapes of their outputs, are levels."""
    if not shapes:
        return []
    ends = _ends(shapes)
    if len(ends) > MAX_LEVELS:
        ends = _ends([tuple(size for size in shape if shape.count(size) > 1) or shape[:1] for shape in shapes])
    if not _FEW <= len(ends) <= MAX_LEVELS:
        count = min(_EVENLY if len(ends) < _FEW else MAX_LEVELS, len(shapes))
        ends = sorted({round((number + 1) * len(shapes) / count) - 1 for number in range(count)})
    return ends


def _ends(shapes: Sequence[tuple[int, ...]]) -> list[int]:
    return [number for number, shape in enumerate(shapes) if shapes[number + 1 : number + 2] != [shape]]


@contextmanager
def watched(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Any]]]:
    """Yield a dictionary that fills with the outputs of these modules while the network runs."""
    seen: dict[str, list[Any]] = {name: [] for name in names}

    def note(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: seen[name].append(tensor_of(output))

    hooks = [module.get_submodule(name).register_forward_hook(note(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def tensor_of(output: Any) -> Any:
    """Return a module's output, or the first of several, which in Transformers is what goes on to the next block."""
    return output[0] if isinstance(output, tuple) and output else output


def pool(value: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Return [B, width] of a module's output: averages over positions or tokens, and the class token as it is."""
    import torch

    if pooling == "map":
        return value.mean((2, 3))  # one ReduceMean: the fastest of the ways in which ONNX can say it
    if pooling == "map_channels_last":
        return value.mean((1, 2))
    if pooling == "tokens":
        return value.mean(1)
    if pooling == "class_and_tokens":
        return torch.cat([value[:, 0], value[:, 1:].mean(1)], 1)
    return value


def extractor(network: nn.Module, levels: Sequence[Level]) -> nn.Module:
    """Return a module that gives the features of some levels of `network`, side by side: float [B, D], in one pass.

    It shares the network's weights, under `network.`, and may run in several threads at a time.
    """
    import torch

    class Extractor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self._found = threading.local()
            for level in levels:
                if level.name != LAST:
                    network.get_submodule(level.name).register_forward_hook(partial(self._keep, level))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self._found.of = {}
            last = self.network(images)
            found = {LAST: last, **self._found.of}
            self._found.of = None  # parts of the network may be called by others
            return found[levels[0].name] if len(levels) == 1 else torch.cat([found[each.name] for each in levels], 1)

        def _keep(self, level: Level, _module: nn.Module, _inputs: Any, output: Any) -> None:
            found = getattr(self._found, "of", None)
            if found is not None:
                found[level.name] = pool(tensor_of(output), level.pooling)

    return Extractor().eval()


def _is_usable(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.shape[:1] == (2,) and value.ndim in (2, 3, 4)


def pooling_of(shape: tuple[int, ...], n_class_tokens: int) -> Pooling:
    """Return how a value of this shape, [B, ...], becomes numbers an image."""
    if len(shape) == 4:
        return "map_channels_last" if shape[1] == shape[2] != shape[3] else "map"
    if len(shape) == 3:
        return "class_and_tokens" if n_class_tokens == 1 and _is_square(shape[1] - 1) else "tokens"
    return "none"


def _n_class_tokens(module: Any) -> int:
    """Return how many tokens of a transformer stand for the whole image: timm's and torchvision's names for them."""
    if getattr(module, "cls_token", None) is not None or getattr(module, "class_token", None) is not None:
        return int(getattr(module, "num_prefix_tokens", 1))
    return 0


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number
