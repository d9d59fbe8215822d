from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.base.errors import ParamError
from headstart.tuning import processes
from headstart.tuning.processes import Processes, join


def test_shares_are_disjoint_and_whole() -> None:
    rows = np.arange(11)
    shares = [Processes(rank, 3, "cpu").share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == rows.tolist()


def test_one_process_needs_no_exchange() -> None:
    tensors = [torch.ones(2), torch.zeros(3, 4)]
    alone = Processes(0, 1, "cpu")
    alone.sum_(tensors)
    alone.wait()
    assert torch.equal(tensors[0], torch.ones(2))


class Doubling:
    """Stands for a second process that has the same tensors."""

    def all_reduce(self, tensor: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        return 2 * tensor


def test_sums_take_the_place_of_tensors_of_every_shape_and_memory() -> None:
    tensors = [torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.tensor(3.0), torch.randn(7)]
    before = [tensor.clone() for tensor in tensors]
    Processes(0, 2, "cpu", Doubling()).sum_(tensors)
    assert all(torch.equal(now, 2 * then) for now, then in zip(tensors, before, strict=True))


def test_more_devices_than_there_are_is_told() -> None:
    with pytest.raises(ParamError, match=r"finetune\.devices is 4096, but this machine has \d+ (cores|GPUs)"):
        join(4096, 1)


def test_a_missing_fabric_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ParamError, match=r"is not installed\. Run `pip install 'headstart\[fabric\]'`"):
        join(2, 1)
