"""FlashAttention over packs without branches beside flex attention: the same numbers, and the time.

First the kernel: output and gradients of packs of plain conversations in bfloat16, both against
SDPA in float64 under the dense mask, by the yardstick of `flex_smoke.py`; and the milliseconds that
both take forward and backward at one layer of each head layout. Then a whole model at 256M widths,
random weights, on packs of one question a picture: losses must agree, seconds a pack stand side by
side. `model.attention: varlen` is what a run asks for; this is what says whether it should.
"""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gpu_check.contract import CheckFailed, CheckSkipped, Report, Settings
from gpu_check.material.models import model_config, packed_twin, random_model, write_plan_folder
from gpu_check.material.steps import StepMaker
from gpu_check.stages.flex_smoke import (
    HEAD_LAYOUTS,
    HEAD_SIZE,
    SLACK,
    error_ratio,
    passes,
    random_states,
    sdpa_under,
)
from gpu_check.stages.timing import seconds_of
from smolvlm.build.configs import tile_side_px
from smolvlm.datasets.encoding.tree import visible
from smolvlm.errors import ConfigError
from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.plan import Scope
from smolvlm.model.attention.varlen import VarlenPlan, check_varlen, plan_varlen

LENGTHS = (40, 128, 1111)
TIMED_LENGTH = 4096
ROWS_A_PACK = (24, 31, 26, 35, 28, 33, 30, 25)
TINY_ROWS_A_PACK = (2, 3, 2)
WARMUP = 3
REPEATS = 10
LOSS_TOLERANCE = 1e-3
"""Relative, of the first pack's loss under bf16 autocast."""


def run(settings: Settings, report: Report) -> None:
    """Compare, then measure.

    Raises:
        CheckSkipped: this device or this torch has no such kernel.
        CheckFailed: its numbers are farther from float64 than they may be, or losses differ.
    """
    try:
        check_varlen(settings.device, is_half=True)
    except ConfigError as error:
        raise CheckSkipped(error.what) from error
    problems: list[str] = []
    for layout in HEAD_LAYOUTS:
        torch._dynamo.reset()
        figures = _compare(layout, settings)
        report.add(**{f"varlen {layout[0]}/{layout[1]}": figures})
        problems += [
            f"{layout[0]}/{layout[1]}, {part}: {value:.1f}"
            for part, value in figures.items()
            if not part.endswith("_ms") and not value <= 1
        ]
    if problems:
        raise CheckFailed("varlen attention, in units of what is allowed: " + "; ".join(problems))
    _compare_models(settings, report)


def _compare(layout: tuple[int, int], settings: Settings) -> dict[str, float]:
    """Return the kernel's errors, each divided by what is allowed, and what both ways take."""
    device, dtype = settings.device, torch.bfloat16
    worst: dict[str, float] = {}
    for length in LENGTHS[:2] if settings.is_tiny else LENGTHS:
        scope_end = _conversations(length).to(device)
        states = random_states(layout, length, dtype, device=device)
        dense = sdpa_under(torch.from_numpy(visible(scope_end.cpu().numpy())).to(device), layout)
        attend = attending(varlen_scope(scope_end))
        has_backward = device == "cuda"
        truth = passes(dense, [value.double() for value in states], has_backward=has_backward)
        sdpa = passes(dense, states, has_backward=has_backward)
        ours = passes(attend, states, has_backward=has_backward)
        for part, value in truth.items():
            ratio = error_ratio(ours[part], sdpa[part], value, slack=SLACK[dtype])
            worst[part] = max(worst.get(part, 0.0), ratio)
    length = LENGTHS[0] if settings.is_tiny else TIMED_LENGTH
    scope_end = _conversations(length).to(device)
    states = random_states(layout, length, dtype, device=device)
    flex = plan_flex(scope_end.cpu().numpy()).to(device).over(scope_end)
    for name, scope in {"varlen": varlen_scope(scope_end), "flex": flex}.items():
        attend = attending(scope)
        taken = [
            seconds_of(lambda: passes(attend, states, has_backward=device == "cuda"), device)  # noqa: B023 - called at once
            for _ in range(WARMUP + REPEATS)
        ]
        worst[f"{name}_ms"] = 1e3 * statistics.median(taken[WARMUP:])
    return worst


def varlen_scope(scope_end: Tensor) -> Scope:
    """Return a pack's attention by FlashAttention.

    Raises:
        CheckFailed: it was planned for another kernel.
    """
    plan = plan_varlen(scope_end.cpu().numpy())
    if not isinstance(plan, VarlenPlan):
        raise CheckFailed("a pack of plain conversations was not planned for FlashAttention")
    return plan.to(str(scope_end.device)).over(scope_end)


def attending(scope: Scope) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return what attends queries, keys and values in a scope."""
    return lambda query, key, value: scope.attend(
        query, key, value, scale=HEAD_SIZE**-0.5, dropout=0.0
    )


def _conversations(length: int) -> Tensor:
    """Return scope ends of plain conversations, to exactly `length` tokens."""
    generator = torch.Generator().manual_seed(length)
    ends: list[int] = []
    while (left := length - len(ends)) > 0:
        drawn = int(torch.randint(1, 1 + max(2, min(length // 4, 300)), (), generator=generator))
        size = min(drawn, left)
        ends += [len(ends) + size] * size
    return torch.tensor(ends, dtype=torch.int32)


def _compare_models(settings: Settings, report: Report) -> None:
    config = model_config("256M", is_tiny=settings.is_tiny)
    folder = write_plan_folder(settings.work_dir / "model", config, tiles_a_side=1)
    counts = TINY_ROWS_A_PACK if settings.is_tiny else ROWS_A_PACK
    maker = StepMaker(
        settings.work_dir,
        folder,
        picture_side_px=tile_side_px(config),
        num_pictures=sum(counts),
        questions=1,
    )
    losses: dict[str, float] = {}
    for name in ("flex", "varlen"):
        steps = maker.make(
            counts,
            device=settings.device,
            batch_size=None,
            first_row=0,
            is_varlen=name == "varlen",
        )
        packs = [pack for step in steps for pack in step.packs]
        model = packed_twin(random_model(config, settings.device), folder).train()
        figures = _measured(model, packs, settings.device)
        losses[name] = figures["first_loss"]
        report.add(**{f"model, {name}": figures})
        del model
    difference = abs(losses["varlen"] / losses["flex"] - 1)
    report.add(loss_difference=difference)
    if not difference <= LOSS_TOLERANCE:
        raise CheckFailed(f"varlen: the first loss differs by {difference:.1e}")


def _measured(model: Any, packs: list[dict[str, Any]], device: str) -> dict[str, float]:
    """Return what forward and backward take, once a few packs have been seen."""
    losses: list[Tensor] = []

    def step(pack: dict[str, Any]) -> None:
        with torch.autocast(device, torch.bfloat16) if device == "cuda" else nullcontext():
            loss = model(pack=pack, normalizer=100.0).loss
        loss.backward()
        losses.append(loss.detach())
        model.zero_grad(set_to_none=True)

    for pack in packs[:WARMUP]:
        step(pack)
    seconds = [seconds_of(lambda: step(pack), device) for pack in packs]  # noqa: B023 - called at once
    return {
        "pack_s": statistics.median(seconds),
        "pack_s_max": max(seconds),
        "first_loss": float(losses[0]),
    }
