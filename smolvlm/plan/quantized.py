"""Layers that hold as many bytes as bitsandbytes' would, for a model without weights.

In: a model of the family and its `quantization`. Out: the same model with stand-ins in place of the
linear layers that would be quantised: they restore their weight and multiply as
`checkpoints/quantized_layers.py` does, and neither need bitsandbytes nor hold a value.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smolvlm.checkpoints.full_weight import WithFullWeight, compute_dtype
from smolvlm.checkpoints.quantization import HEAD
from smolvlm.config.quantization import FourBits, FullPrecision, Quantization
from smolvlm.model.towers import TOWER_OF, tower_of
from smolvlm.plan.trace import UNPACK

BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale in 4 bits, and scales that share one where they are quantised too."""


@torch.library.custom_op(f"smolvlm_plan::{UNPACK}", mutates_args=())
def unpacked(packed: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Return a weight out of its 4 bits: one operation, which has a rate of its own."""
    # Fake tensors take the function below; with true ones somebody would get values that are none.
    raise NotImplementedError("a stand-in has no values to restore")


@unpacked.register_fake
def _(packed: Tensor, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return packed.new_empty((rows, columns), dtype=dtype)


class StandInLinear(nn.Linear):
    """A linear layer whose weight is bytes without values."""

    def __init__(self, linear: nn.Linear, quantization: Quantization) -> None:
        super().__init__(1, 1, bias=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.is_8bit = not isinstance(quantization, FourBits)
        self.stored_dtype = linear.weight.dtype
        count = linear.weight.numel()
        held = count if self.is_8bit else -(-count // 2)
        shape = linear.weight.shape if self.is_8bit else (held, 1)
        self.weight = nn.Parameter(torch.zeros(shape, dtype=torch.int8), requires_grad=False)
        self.bias = linear.bias
        for number, scale in enumerate(_scales(linear, quantization)):
            self.register_buffer(f"scale_{number}", scale, persistent=False)

    def full_weight(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        if self.is_8bit:
            scale = self.get_buffer("scale_0")
            return self.weight.data.to(dtype, copy=True).mul_(scale.unsqueeze(1).mul(1.0 / 127.0))
        values = unpacked(self.weight, self.out_features, self.in_features, self.stored_dtype)
        return values.to(dtype)

    def forward(self, input: Float[Tensor, "*axes in"]) -> Float[Tensor, "*axes out"]:
        output = WithFullWeight.apply(input, self.bias, self, compute_dtype(input))
        assert isinstance(output, Tensor)
        return output


def _scales(linear: nn.Linear, quantization: Quantization) -> list[Tensor]:
    if not isinstance(quantization, FourBits):
        return [torch.zeros(linear.out_features)]
    blocks = -(-linear.weight.numel() // BLOCK)
    code = torch.zeros(16)
    if not quantization.has_double_quant:
        return [torch.zeros(blocks), code]
    nested = torch.zeros(-(-blocks // NESTED_BLOCK))
    return [torch.zeros(blocks, dtype=torch.uint8), nested, torch.zeros(256), torch.zeros(1), code]


def put_stand_ins(model: nn.Module, quantization: Quantization) -> None:
    """Put stand-ins into a model in place of the layers that its settings quantise."""
    if isinstance(quantization, FullPrecision):
        return
    towers = {TOWER_OF[part] for part in quantization.parts}
    for name, layer in list(model.named_modules()):
        is_linear = isinstance(layer, nn.Linear) and name != HEAD
        if is_linear and tower_of(f"{name}.weight") in towers:
            assert isinstance(layer, nn.Linear)
            model.set_submodule(name, StandInLinear(layer, quantization))
