"""A model that computes and does not learn."""

import pytest
import torch
from torch import nn

from smolvlm.model.evaluating import evaluating


class Layer(nn.Linear):
    """One that knows its device, as the stock models do."""

    device = torch.device("cpu")


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_in_the_numbers_asked_for_and_nothing_is_kept_for_a_gradient(
    is_training: bool, dtype: torch.dtype
) -> None:
    layer = Layer(4, 4).train(is_training)
    with evaluating(layer, dtype):
        assert not layer.training
        output = layer(torch.ones(2, 4))
    assert (output.dtype, output.requires_grad) == (dtype, False)
    assert layer.training == is_training
    assert layer(torch.ones(2, 4)).dtype == torch.float32


def test_the_mode_is_restored_after_an_error() -> None:
    layer = Layer(4, 4)
    with pytest.raises(ZeroDivisionError), evaluating(layer, torch.float32):
        _ = 1 / 0
    assert layer.training
    assert torch.is_grad_enabled()
