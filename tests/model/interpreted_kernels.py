"""Liger's kernels by Triton's interpreter beside the stock layers; prints the largest differences.

A program of its own, since Triton reads `TRITON_INTERPRET` as it is imported. The interpreter
(triton 3.8) knows no scalar of type float and no `rsqrt` of CUDA's library, so both are given to
it; and it reads bfloat16 wrongly, so this is float32.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import triton.language as tl
from torch import Tensor
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from triton.runtime import interpreter

from smolvlm.model.fused_layers import liger_kernels


def teach_the_interpreter() -> None:
    stock: Any = interpreter._implicit_cvt

    def converted(value: Any) -> Any:
        if type(value) is not float:
            return stock(value)
        handle = interpreter.TensorHandle(np.array([value], np.float32), tl.float32)
        return tl.tensor(handle, tl.float32)

    interpreter._implicit_cvt = converted
    norm: Any = importlib.import_module("liger_kernel.ops.rms_norm")
    norm.rsqrt = lambda value: tl.math.rsqrt(value)  # found once the interpreter has it


def difference(
    ours: Callable[..., Any], stock: Callable[..., Any], inputs: Sequence[Tensor]
) -> float:
    """Return the largest difference of results and gradients, as a share of the largest value."""
    found = []
    for function in (stock, ours):
        leaves = [value.clone().requires_grad_() for value in inputs]
        # Not the leaves themselves: the rotary kernel overwrites what it gets.
        outputs = function(*(value * 1.0 for value in leaves))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        random = torch.Generator().manual_seed(1)
        upstream = [torch.randn(value.shape, generator=random) for value in outputs]
        kept = [value.detach().clone() for value in outputs]
        torch.autograd.backward(outputs, upstream)
        found.append([*kept, *(value.grad for value in leaves)])
    return max(
        float((one - other).abs().max() / other.abs().max())
        for one, other in zip(found[1], found[0], strict=True)
    )


def main() -> None:
    teach_the_interpreter()
    kernels, random = liger_kernels("cpu"), torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    norm = LlamaRMSNorm(96, eps=1e-5)

    def stock_norm(states: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (states,))

    angles = drawn(1, 7, 8).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    queries, keys = drawn(1, 7, 6, 16).transpose(1, 2), drawn(1, 7, 2, 16).transpose(1, 2)
    print(
        json.dumps(
            {
                "norm": difference(
                    lambda states, weight: kernels.rms_norm(states, weight, 1e-5),
                    stock_norm,
                    (drawn(1, 7, 96), drawn(96)),
                ),
                "rotate": difference(
                    lambda first, second: kernels.rotate(first, second, cos, sin),
                    lambda first, second: apply_rotary_pos_emb(first, second, cos, sin),
                    (queries, keys),
                ),
                "gate": difference(
                    kernels.gate, lambda a, b: silu(a) * b, (drawn(1, 7, 80), drawn(1, 7, 80))
                ),
            }
        )
    )


if __name__ == "__main__":
    main()
