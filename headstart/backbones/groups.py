"""The layer groups of a network, from the input to the output: what fine-tuning freezes and unfreezes.

timm's models say themselves which tensors belong together (`group_matcher`); a generic rule divides all others.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

STEM = "stem"


class Group(NamedTuple):
    """Tensors that are frozen and unfrozen together."""

    name: str  # 'stem', 'layer4.1', ...
    tensors: tuple[str, ...]  # parameters by their names in the network
    n_parameters: int


def layer_groups(module: nn.Module) -> list[Group]:
    """Return every parameter of `module` in groups, the one nearest to the input first."""
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    divided = _by_matcher(module, list(sizes)) if hasattr(module, "group_matcher") else _by_rule(module)
    if len(divided) > 1 and all(_is_norm(module, tensor) for tensor in divided[-1][1]):
        divided[-2][1].extend(divided.pop()[1])
    if len(divided) > 1:
        divided[0] = (STEM, divided[0][1])
    return [Group(name, tuple(tensors), sum(sizes[tensor] for tensor in tensors)) for name, tensors in divided]


def _by_matcher(module: Any, tensors: list[str]) -> list[tuple[str, list[str]]]:
    from timm.models import group_parameters

    group_of = group_parameters(module, module.group_matcher(coarse=False), reverse=True)
    divided: list[list[str]] = [[] for _ in range(max(group_of.values()) + 1)]
    for tensor in tensors:
        divided[group_of[tensor]].append(tensor)
    return [(_common_path(some), some) for some in divided if some]


def _by_rule(module: nn.Module) -> list[tuple[str, list[str]]]:
    """Divide by structure: a block is a module with children that is no mere container.

    What comes before the first block is the stem. What follows the last one, and a network without blocks, is divided
    by layer; a normalisation belongs to the layer before it.
    """
    units: list[_Unit] = []
    for unit in _units(module, "", sum(parameter.numel() for parameter in module.parameters())):
        if units and unit.joins:
            units[-1].tensors.extend(unit.tensors)
        else:
            units.append(unit)
    first = next((number for number, unit in enumerate(units) if unit.is_block), 0)
    stem = [tensor for unit in units[:first] for tensor in unit.tensors]
    return ([(STEM, stem)] if stem else []) + [(unit.name, unit.tensors) for unit in units[first:]]


class _Unit(NamedTuple):
    """A block, a layer, or what a container holds itself."""

    name: str
    tensors: list[str]
    is_block: bool = False
    joins: bool = False  # the unit before it


def _units(module: nn.Module, prefix: str, n_whole: int) -> Iterator[_Unit]:
    """Yield blocks and layers in the order of their definition."""
    from torch import nn

    own = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    if own:
        yield _Unit(prefix + "parameters", own, joins=True)
    for name, child in module.named_children():
        path = prefix + name
        inner = [f"{path}.{tensor}" for tensor, _ in child.named_parameters()]
        if not inner:
            continue
        if not list(child.children()):
            yield _Unit(path, inner, joins="norm" in type(child).__name__.lower())
        elif type(child) in (nn.Sequential, nn.ModuleList) or _is_wrapper(child, n_whole):
            yield from _units(child, f"{path}.", n_whole)
        else:
            yield _Unit(path, inner, is_block=True)


def _is_wrapper(module: nn.Module, n_whole: int) -> bool:
    """Return whether a module is most of the network and holds its blocks in a container, as an encoder does.

    The container may be that of a part that is most of the network too, as in models of Transformers.
    """
    from torch import nn

    if 2 * sum(parameter.numel() for parameter in module.parameters()) <= n_whole:
        return False
    containers = [child for child in module.children() if isinstance(child, nn.Sequential | nn.ModuleList)]
    return any(type(child) in (nn.Sequential, nn.ModuleList) and len(child) > 1 for child in containers) or any(
        _is_wrapper(child, n_whole) for child in module.children()
    )


def _is_norm(module: nn.Module, tensor: str) -> bool:
    return "norm" in type(module.get_submodule(tensor.rpartition(".")[0])).__name__.lower()


def _common_path(tensors: list[str]) -> str:
    """Return the longest path that the first tensor shares with its neighbours, such as 'layer4.1'."""
    paths = [PurePosixPath(*(tensor.split(".")[:-1] or [tensor])) for tensor in tensors]
    return os.path.commonpath([path for path in paths if path.parts[0] == paths[0].parts[0]]).replace("/", ".")
