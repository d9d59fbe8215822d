from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headstart.base.errors import ParamError
from headstart.tuning.schedule import Phase, Rates, phases


def test_a_number_holds_for_all_epochs() -> None:
    assert phases(2, 5, 9) == [Phase(1, 5, 2)]
    assert phases("all", 5, 9) == [Phase(1, 5, 9)]
    assert phases(0, 5, 9) == [Phase(1, 5, 0)]


def test_a_schedule_unfreezes_from_its_epochs_on() -> None:
    assert phases({1: 0, 3: 2, 5: "all"}, 6, 9) == [Phase(1, 2, 0), Phase(3, 4, 2), Phase(5, 6, 9)]
    assert phases({3: 2}, 6, 9) == [Phase(1, 2, 0), Phase(3, 6, 2)]
    assert phases({1: 2, 3: 2, 5: 3}, 6, 9) == [Phase(1, 4, 2), Phase(5, 6, 3)]


@given(st.dictionaries(st.integers(1, 20), st.integers(0, 9), min_size=1), st.integers(20, 30))
def test_phases_cover_every_epoch_once(schedule: dict[int, int], n_epochs: int) -> None:
    found = phases(schedule, n_epochs, 9)
    assert [epoch for phase in found for epoch in range(phase.first, phase.last + 1)] == list(range(1, n_epochs + 1))
    for phase in found:
        for epoch in range(phase.first, phase.last + 1):
            named = [known for known in schedule if known <= epoch]
            assert phase.n_unfrozen == (schedule[max(named)] if named else 0)


@pytest.mark.parametrize("unfreeze", [10, {1: 2, 3: 10}])
def test_more_groups_than_there_are_is_told(unfreeze: int | dict[int, int]) -> None:
    with pytest.raises(ParamError, match=r"asks for 10 layer groups, but the backbone has 9\. 0 to 9, or all"):
        phases(unfreeze, 5, 9)  # type: ignore[arg-type]


def test_step_decay_is_torchs() -> None:
    rates = Rates(0.1, 1.0, 25, 0.0, 7, 0.1)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=7, gamma=0.1)
    for epoch in range(25):
        assert rates.at(epoch + 0.5) == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()


def test_cosine_after_the_warm_up_is_torchs() -> None:
    rates = Rates(0.1, 1.0, 12, 2.0, None, None)
    assert [rates.at(epoch) for epoch in (0, 0.5, 1, 2)] == pytest.approx([0, 0.025, 0.05, 0.1])
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=10)
    for epoch in range(2, 13):
        assert rates.at(epoch) == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        schedule.step()


def test_lower_groups_learn_more_slowly() -> None:
    rates = Rates(0.1, 0.5, 5, 0.0, None, None)
    assert [rates.of_group(depth) for depth in range(4)] == [1, 0.5, 0.25, 0.125]
