"""An optimizer's state by names: what is to be written later is a copy."""

import pytest
import torch
from torch import nn

from smolvlm.train.optimizer_state import named_state, num_state_bytes


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()


@pytest.mark.parametrize("copies", [True, False])
def test_a_copy_is_not_changed_by_the_next_step(copies: bool) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    stepped(model, optimizer)
    state = named_state(model, optimizer, keeps=True, copies=copies)["state"]
    before = {
        (name, key): value.clone()
        for name, values in state.items()
        for key, value in values.items()
    }
    stepped(model, optimizer)
    after = {(name, key): state[name][key] for name, key in before}
    is_same = [torch.equal(before[key], after[key]) for key in before]
    assert set(is_same) == {copies}
    assert {name for name, _ in before} == {"weight", "bias"}


def test_its_size_is_that_of_its_moments() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert num_state_bytes(optimizer) == 0
    stepped(model, optimizer)
    assert num_state_bytes(optimizer) == 4 * (2 * (6 + 2) + 2)  # two moments, and a counter each
