"""Cuts a network into a frozen prefix and a trainable suffix, which together compute what the network computes.

The cut follows the data flow, not the names of layers. The prefix is everything that does not depend on a trainable
tensor, so its output is the same in every epoch. Tracing stops at layer groups: inside a group, the network's own code
runs, in training and in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from headstart.backbones.groups import Group, layer_groups

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


class Cut(NamedTuple):
    """The two parts. They share their modules, and therefore weights and modes, with the network."""

    prefix: fx.GraphModule  # float [B, 3, I, I] -> a tuple of tensors [B, ...]
    suffix: fx.GraphModule  # these tensors -> features [B, D]


class NoCutError(Exception):
    """The network cannot be cut there; the message gives the reason."""


def cut(extractor: nn.Module, groups: Collection[Group], examples: tuple[torch.Tensor, torch.Tensor]) -> Cut:
    """Return the parts of a `levels.extractor` before and after the first value that depends on a tensor of `groups`.

    `examples` are two different batches of different sizes, float [B, 3, I, I]. Raises NoCutError if the network cannot
    be traced, or if its parts exchange anything but constants and tensors with one row per image.
    """
    import torch
    from torch import fx

    nodes = list(_traced(extractor).nodes)
    trained = {f"network.{tensor}" for group in groups for tensor in group.tensors}
    from_pixels, after = set[fx.Node](), set[fx.Node]()
    for node in nodes:
        inputs = set(node.all_input_nodes)
        if node.op == "placeholder" or inputs & from_pixels:
            from_pixels.add(node)
        is_trained = node.op in ("call_module", "get_attr") and _holds(str(node.target), trained)
        if is_trained or inputs & after or node.op == "output":
            after.add(node)
    frontier = [node for node in nodes if node in from_pixels - after and any(user in after for user in node.users)]

    def prefix_to(ends: list[fx.Node]) -> fx.GraphModule:
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        for node in nodes:
            if node not in after:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in ends))
        return _tidied(extractor, graph)

    try:
        with torch.no_grad():
            kept, others = (prefix_to(frontier)(example) for example in examples)
        constants = {node: one for node, one, other in zip(frontier, kept, others, strict=True) if _same(one, other)}
        rows = [(node, value) for node, value in zip(frontier, kept, strict=True) if node not in constants]
        if not all(isinstance(value, torch.Tensor) and value.shape[:1] == examples[0].shape[:1] for _, value in rows):
            raise NoCutError("its parts exchange something other than one row per image")
        graph = fx.Graph()
        copies = {node: graph.placeholder(f"kept_{number}") for number, (node, _) in enumerate(rows)}
        for number, (node, value) in enumerate(constants.items()):
            copies[node] = _constant(extractor, graph, f"constant_{number}", value)
        for node in nodes:
            if node in after or node not in from_pixels:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        parts = Cut(prefix_to([node for node, _ in rows]), _tidied(extractor, graph))
        with torch.no_grad():
            whole, joined = extractor(examples[1]), parts.suffix(*parts.prefix(examples[1]))
    except NoCutError:
        raise
    except Exception as error:  # a network may raise anything when it runs in a way it was not written for
        raise NoCutError(f"its parts do not run on their own ({_first_line(error)})") from error
    if not torch.allclose(whole, joined, rtol=1e-4, atol=1e-5 * float(whole.abs().max())):
        raise NoCutError("its parts do not compute what the whole network computes")
    return parts


def _traced(root: nn.Module) -> fx.Graph:
    from torch import fx

    network = root.get_submodule("network")
    watched = [path for path, module in network.named_modules() if module._forward_hooks]  # the levels
    group_of = {tensor: number for number, group in enumerate(layer_groups(network)) for tensor in group.tensors}

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            """Return whether the module belongs to one group, and no level ends inside it."""
            path = module_qualified_name.removeprefix("network").removeprefix(".")
            if any(other.startswith(f"{path}.") for other in watched):
                return False
            tensors = (f"{path}.{name}" if path else name for name, _ in m.named_parameters())
            return len({group_of.get(tensor) for tensor in tensors}) <= 1

        def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
            """Call the hooks of leaves too: the extractor takes its levels by them."""
            value = super().call_module(m, forward, args, kwargs)
            if self.is_leaf_module(m, self.path_of_module(m)):
                for hook in m._forward_hooks.values():
                    hook(m, args, value)
            return value

    try:
        return Tracer().trace(root)
    except Exception as error:  # a network may run any Python code and raise anything
        raise NoCutError(f"it cannot be traced ({_first_line(error)})") from error


def _tidied(root: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    from torch import fx

    part = fx.GraphModule(root, graph)
    part.graph.eliminate_dead_code()
    part.delete_all_unused_submodules()
    part.recompile()
    return part


def _constant(root: nn.Module, graph: fx.Graph, name: str, value: Any) -> fx.Node:
    import torch

    if not isinstance(value, torch.Tensor):
        return graph.call_function(type(value), (value,))
    root.register_buffer(name, value)
    return graph.get_attr(name)


def _same(one: Any, other: Any) -> bool:
    """Return whether two batches gave the same value, which then depends only on their height and width."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)
    return isinstance(one, int | float | tuple) and bool(one == other)


def _holds(target: str, tensors: Collection[str]) -> bool:
    """Return whether `target` is one of `tensors`, or a module that holds one of them."""
    return target in tensors or any(tensor.startswith(f"{target}.") for tensor in tensors)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
