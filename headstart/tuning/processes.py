"""One process, or several that train together: on several GPUs, several hosts, or the cores of one.

Lightning Fabric starts and connects them. Each computes its share of every batch, and their sum is the gradient of the
batch: the number of processes changes only the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from headstart.base.cores import n_cores
from headstart.base.errors import ParamError

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Processes:
    """The processes that train together, and this one's rank."""

    rank: int
    size: int
    device: str  # 'cpu', 'cuda:0', ...
    _fabric: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of a batch that this process computes."""
        return rows[self.rank :: self.size]

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one exchange."""
        import torch

        if self._fabric is None:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        totals = self._fabric.all_reduce(flat, reduce_op="sum").split([tensor.numel() for tensor in tensors])
        for tensor, total in zip(tensors, totals, strict=True):
            tensor.detach().copy_(total.view(tensor.shape))

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self._fabric is not None:
            self._fabric.barrier()

    def first_then_all(self, make: Callable[[], Any]) -> Any:
        """Call `make` in the first process, then in the others, which find its results; return its value."""
        if self.is_first:
            made = make()
            self.wait()
            return made
        self.wait()
        return make()


def device() -> str:
    """Return 'cuda' if there is a GPU, else 'cpu'."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def join(n_devices: int, n_hosts: int) -> Processes:
    """Return the processes; if there are to be several, start `n_devices` per host.

    All run the command that started this one. ParamError if Lightning Fabric or devices are missing.
    """
    import torch

    kind = device()
    if n_devices * n_hosts == 1:
        return Processes(0, 1, "cpu" if kind == "cpu" else "cuda:0")
    if not find_spec("lightning_fabric"):
        raise ParamError(
            f"finetune.devices is {n_devices} and finetune.hosts {n_hosts}, but Lightning Fabric is not installed. Run"
            " `pip install 'headstart[fabric]'`, or set both to 1 in params.yaml."
        )
    available = torch.cuda.device_count() if kind == "cuda" else n_cores()
    if n_devices > available:
        raise ParamError(
            f"finetune.devices is {n_devices}, but this machine has {available}"
            f" {'GPUs' if kind == 'cuda' else 'cores and no GPU'}. At most {available} was expected. Set"
            " finetune.devices in params.yaml."
        )
    from lightning_fabric import Fabric

    fabric: Any = Fabric(accelerator=kind, devices=n_devices, num_nodes=n_hosts, strategy="ddp")
    fabric.launch()
    if kind == "cpu":
        torch.set_num_threads(max(1, n_cores() // n_devices))
    return Processes(fabric.global_rank, fabric.world_size, str(fabric.device), fabric)
