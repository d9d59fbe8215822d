"""The backbone and its head in training: what is frozen, what runs in training mode, and the names of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headstart.backbones.graph import normalisation
from headstart.backbones.groups import Group, layer_groups
from headstart.tuning.cut import Cut, cut

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from headstart.backbones.networks import Backbone
    from headstart.backbones.preprocessing import Preprocessing


class Network:
    """A frozen backbone with a linear head. `unfreeze` selects what trains; everything else stays bitwise the same."""

    def __init__(
        self, backbone: Backbone, weight: np.ndarray, bias: np.ndarray, dropout: float, device: str, train_norms: bool
    ) -> None:
        """Put the head, float [D, C] and [C], on all levels of the backbone, which training changes in place."""
        import torch
        from torch import nn

        self.name = backbone.name
        self.preprocessing: Preprocessing = backbone.preprocessing
        self.groups: list[Group] = layer_groups(backbone.module)
        self.device, self.train_norms = device, train_norms
        self.backbone = backbone.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.extractor = backbone.extractor()  # which shares the backbone's weights
        self.head = nn.Linear(weight.shape[0], weight.shape[1], device=device)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weight.T))
            self.head.bias.copy_(torch.from_numpy(bias))
        self.dropout = nn.Dropout(dropout)
        self._scale, self._shift = (part.to(device) for part in normalisation(backbone.preprocessing))
        self.unfreeze(0)

    def top(self, n_groups: int) -> list[Group]:
        """Return the last `n_groups` groups of the backbone, last one first."""
        return self.groups[::-1][:n_groups]

    def unfreeze(self, n_groups: int) -> None:
        """Make the head and the last `n_groups` groups trainable, and freeze the rest.

        Modules whose tensors are all trainable run in training mode, so that their dropout and stochastic depth work.
        Their batch norms learn new statistics if `train_norms`. All other modules run in evaluation mode.
        """
        from torch.nn.modules.batchnorm import _BatchNorm

        trained = {tensor for group in self.top(n_groups) for tensor in group.tensors}
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in trained)
        self.backbone.eval()
        _train_where(self.backbone, trained, "")
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm) and not self.train_norms:
                module.eval()
        self.head.requires_grad_(True)
        self.dropout.train()

    def eval(self) -> None:
        """Put everything in evaluation mode until the next `unfreeze`."""
        self.backbone.eval()
        self.dropout.eval()

    @property
    def n_trainable(self) -> int:
        """The number of values that are trainable now."""
        own = [*self.backbone.parameters(), *self.head.parameters()]
        return sum(parameter.numel() for parameter in own if parameter.requires_grad)

    def parameters(self, n_groups: int) -> dict[str, nn.Parameter]:
        """Return the parameters of the head ('head.*') and of the last `n_groups` groups ('backbone.*')."""
        named = dict(self.backbone.named_parameters())
        own: dict[str, nn.Parameter] = {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}
        return own | {f"backbone.{tensor}": named[tensor] for group in self.top(n_groups) for tensor in group.tensors}

    def statistics(self, n_groups: int) -> dict[str, torch.Tensor]:
        """Return the buffers that training changes: those of batch norms in the last groups, if `train_norms`."""
        if not self.train_norms:
            return {}
        owners = {tensor.rpartition(".")[0] for group in self.top(n_groups) for tensor in group.tensors}
        buffers = self.backbone.named_buffers()
        return {f"backbone.{name}": buffer for name, buffer in buffers if name.rpartition(".")[0] in owners}

    def tensors(self, n_groups: int) -> dict[str, torch.Tensor]:
        """Return parameters and statistics by name."""
        return {name: parameter.data for name, parameter in self.parameters(n_groups).items()} | self.statistics(
            n_groups
        )

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Return the backbone's input, float32 [B, 3, I, I], for uint8 [B, 3, I, I] of any memory layout."""
        import torch

        images = images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return images.float() * self._scale + self._shift

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return [B, C] for the backbone's features [B, D]."""
        scores: torch.Tensor = self.head(self.dropout(features))
        return scores

    def cut(self, n_groups: int) -> Cut:
        """Return the network cut below its last `n_groups` groups; NoCutError if that is impossible."""
        import torch

        self.eval()
        side, random = self.preprocessing.input_px, torch.Generator().manual_seed(0)
        few, more = (torch.randn(n, 3, side, side, generator=random).to(self.device) for n in (2, 3))
        return cut(self.extractor, self.top(n_groups), (few, more))


def _train_where(module: nn.Module, trained: set[str], prefix: str) -> None:
    """Put the largest modules that hold only trained tensors into training mode."""
    tensors = [prefix + name for name, _ in module.named_parameters()]
    if tensors and trained.issuperset(tensors):
        module.train()
    elif tensors:
        for name, child in module.named_children():
            _train_where(child, trained, f"{prefix}{name}.")


def optimiser_groups(network: Network, n_groups: int, weight_decay: float) -> list[dict[str, object]]:
    """Return torch's parameter groups: by depth below the head, without weight decay for norms and biases."""
    named = network.parameters(n_groups)
    by_depth: list[Sequence[str]] = [["head.weight", "head.bias"]]
    by_depth += [[f"backbone.{tensor}" for tensor in group.tensors] for group in network.top(n_groups)]
    divided = []
    for depth, names in enumerate(by_depth):
        for decay, chosen in (
            (weight_decay, [named[name] for name in names if named[name].ndim > 1]),
            (0.0, [named[name] for name in names if named[name].ndim <= 1]),
        ):
            if chosen:
                divided.append({"params": chosen, "weight_decay": decay, "depth": depth, "lr": 0.0})
    return divided


def autocast(device: str, precision: str) -> Any:
    """Return the context in which a network computes in `precision`."""
    import torch

    kind = device.partition(":")[0]
    return torch.autocast(kind, getattr(torch, precision), enabled=precision != "float32")
