"""Activations of one tower or of both, computed again: gradients in float32 are the same bits."""

import pytest
import torch

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.model.checkpointing import checkpointed_towers
from tests.parity.test_packed_equals_alone import MIXED


@pytest.mark.parametrize("choice", ["language_model", "vision_tower", True])
def test_checkpointing_of_any_tower_changes_no_bit(bench, choice: Checkpointing) -> None:
    """On a pack with trees and with several pictures in a conversation."""
    bench.ours.train()
    expected = bench.packed(MIXED)
    bench.ours.checkpointed_towers = checkpointed_towers(choice)
    bench.ours.activation_checkpointing_enable()
    found = bench.packed(MIXED)
    assert found.loss == expected.loss
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        assert gradient is not None, name
        assert torch.equal(found.gradients[name], gradient), name
