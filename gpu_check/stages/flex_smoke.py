"""Flex attention against SDPA under the dense rule: output and gradients.

Float32 and bfloat16, lengths that change. Query q sees key k <=> k <= q < scope_end[k]. The judge
is SDPA in float64 under the dense mask. Flex may be twice as far from it as SDPA is in the same
type, and a little more (`SLACK`): no fixed tolerance has to fit all types and lengths.

Builders of block masks stand in `BLOCK_MASKS`, and each is checked alike: a back end that makes its
block lists itself is one entry more.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.stages.timing import num_graphs
from smolvlm.datasets.encoding.tree import scope_ends, visible
from smolvlm.model.attention.flex import KERNEL_OPTIONS, flex_kernel, plan_flex

HEAD_LAYOUTS = ((9, 3), (15, 5), (32, 32))
HEAD_SIZE = 64
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
LENGTHS = (40, 127, 128, 300, 1111)
"""Below and above the kernel's own block of 128 queries, at it, and no multiple of it."""
SLACK = {torch.float32: 1e-5, torch.bfloat16: 8e-3}
"""Flex rounds probabilities to the inputs' type, SDPA's plain path does not; a wrong mask is off by
a hundred times as much."""
CASES = (((9, 3), torch.float32), *((layout, torch.bfloat16) for layout in HEAD_LAYOUTS))
"""Each costs seconds of compiling; float32 at one layout is enough beside the stage `exact`."""


def dense_block_mask(scope_end: Tensor) -> Any:
    """Return torch's own block mask of the rule, made by evaluating it on all pairs."""

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < scope_end[key])

    length = len(scope_end)
    return create_block_mask(sees, None, None, length, length, device=str(scope_end.device))


def planned_block_mask(scope_end: Tensor) -> Any:
    """Return the block mask that the loader plans, without a table of all pairs."""
    plan = plan_flex(scope_end.cpu().numpy()).to(scope_end.device)
    return plan.over(scope_end).block_mask


BLOCK_MASKS: dict[str, Callable[[Tensor], Any]] = {
    "from the plan": planned_block_mask,
    "create_block_mask": dense_block_mask,
}
"""Name -> scope_end (seq,) to a `BlockMask`: the product's own, and torch's."""


def check_flex(settings: Settings, report: Report) -> None:
    """Compare flex and SDPA at every layout, type and length.

    Raises:
        CheckFailed: flex is farther from float64 than SDPA under the same mask is; the text names
            the worst.
    """
    lengths = LENGTHS[:3] if settings.is_tiny else LENGTHS
    torch.backends.cuda.matmul.allow_tf32 = False
    problems = []
    for builder in BLOCK_MASKS:
        for layout, dtype in CASES:
            torch._dynamo.reset()  # each layout and type counts towards the limit of graphs
            attend = flex_kernel()
            started, graphs = time.perf_counter(), num_graphs()
            errors = [
                _errors(attend, builder, layout, length, dtype, device=settings.device)
                for length in lengths
            ]
            worst = {part: max(own[part] for own in errors) for part in errors[0]}
            name = f"{builder} {layout[0]}/{layout[1]} {str(dtype).removeprefix('torch.')}"
            seconds, made = time.perf_counter() - started, num_graphs() - graphs
            report.add(**{f"flex {name}": {**worst, "graphs": made, "seconds": seconds}})
            failed = [part for part, own in worst.items() if not own <= 1]
            problems += [f"{name}, {part}: {worst[part]:.1f}" for part in failed]
    if problems:
        raise CheckFailed("flex attention, in units of what is allowed: " + "; ".join(problems))


def _errors(
    compiled: Any,
    builder: str,
    layout: tuple[int, int],
    length: int,
    dtype: torch.dtype,
    *,
    device: str,
) -> dict[str, float]:
    """Return flex's errors of output and gradients, each divided by what is allowed."""
    scope_end = _forest(length).to(device)
    mask = torch.from_numpy(visible(scope_end.cpu().numpy())).to(device)
    block_mask = BLOCK_MASKS[builder](scope_end)
    states = random_states(layout, length, dtype, device=device)
    has_backward = device == "cuda"  # flex on a CPU has none
    is_grouped = layout[0] != layout[1]
    dense = sdpa_under(mask, layout)

    def flex(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return compiled(
            query,
            key,
            value,
            block_mask=block_mask,
            enable_gqa=is_grouped,
            kernel_options=dict(KERNEL_OPTIONS),
        )

    truth = passes(dense, [value.double() for value in states], has_backward=has_backward)
    sdpa = passes(dense, states, has_backward=has_backward)
    ours = passes(flex, states, has_backward=has_backward)
    return {
        name: error_ratio(ours[name], sdpa[name], truth[name], slack=SLACK[dtype]) for name in truth
    }


def random_states(
    layout: tuple[int, int], length: int, dtype: torch.dtype, *, device: str
) -> list[Tensor]:
    """Return random queries, keys, values, and a gradient of the output."""
    generator = torch.Generator(device).manual_seed(length)
    return [
        torch.randn(1, heads, length, HEAD_SIZE, device=device, generator=generator).to(dtype)
        for heads in (layout[0], layout[1], layout[1], layout[0])
    ]


def sdpa_under(mask: Tensor, layout: tuple[int, int]) -> Attend:
    """Return SDPA under a dense mask."""

    def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, enable_gqa=layout[0] != layout[1]
        )

    return dense


def passes(attend: Attend, states: list[Tensor], *, has_backward: bool) -> dict[str, Tensor]:
    """Return the output, and the gradients where there is a backward pass."""
    inputs = [value.clone().requires_grad_(has_backward) for value in states[:3]]
    output = attend(*inputs)
    if not has_backward:
        return {"output": output}
    gradients = torch.autograd.grad(output, inputs, states[3])
    return {
        "output": output.detach(),
        **dict(zip(("d_query", "d_key", "d_value"), gradients, strict=True)),
    }


def error_ratio(ours: Tensor, sdpa: Tensor, truth: Tensor, *, slack: float) -> float:
    """Return an error as a share of what is allowed: twice SDPA's in the same type, and `slack`."""
    size = float(truth.norm())
    ours_error, sdpa_error = (
        float((value.double() - truth).norm()) / size for value in (ours, sdpa)
    )
    return ours_error / (2 * sdpa_error + slack)


def _forest(length: int) -> Tensor:
    """Return scope ends of trees and plain conversations in turn, to exactly `length` tokens."""
    generator = torch.Generator().manual_seed(length)
    ends: list[int] = []
    while (left := length - len(ends)) > 0:
        trunk, *branches = torch.randint(
            1, 1 + max(2, length // 6), (4,), generator=generator
        ).tolist()
        is_tree = (
            bool(torch.randint(0, 2, (1,), generator=generator)) and trunk + sum(branches) <= left
        )
        tree = scope_ends(
            branches if is_tree else [min(trunk, left)], trunk_length=trunk if is_tree else 0
        )
        ends += (tree + len(ends)).tolist()
    return torch.tensor(ends, dtype=torch.int32)
