"""What padding packs, fusing layers and master weights gain where launching operations is most of a
step: 256M.

Random weights, everything trains, bf16 autocast over float32 weights on a GPU. The same packs, of
other lengths in each step, as they are, padded, and padded with Liger's layers where the package is
there, with bfloat16 weights under float32 masters, and with both; each from the same weights,
forward and backward without an optimizer, in turns. First losses must agree: padding to its
tolerance, Liger's to that of two orders of bf16 products, masters (which are autocast's numbers)
to the tighter one. Reported for each: seconds a pack, the slowest, kernels launched for the first
one, what compiled graphs it made, and the memory that torch took from the driver. And of Liger's
three functions the largest difference to the stock layers', in float32 and bf16, and of the
masters' gradients that to the gradients under autocast.
"""

import statistics
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, packed_twin, random_model, write_plan_folder
from gpu_check.material.steps import StepMaker
from gpu_check.stages.timing import num_graphs, seconds_of
from smolvlm.build.configs import tile_side_px
from smolvlm.errors import ConfigError
from smolvlm.model.fused_layers import FusedKernels, fuse_layers, liger_kernels
from smolvlm.train.master_weights import MasterWeights

ROWS_A_PACK = (24, 29, 31, 26, 33, 28, 35, 30, 27, 32, 25, 34)
TINY_ROWS_A_PACK = (2, 2, 2, 2)
WARMUP = 4
QUESTIONS = 3
TOLERANCES = {
    "padded": 1e-3,
    "padded, masters": 1e-3,
    "padded, Liger": 5e-3,
    "padded, Liger, masters": 5e-3,
}
"""Relative, of the first pack's loss under bf16 autocast."""
MASTERS_TOLERANCE = 1e-3
"""Of the masters' gradients to those under autocast, as a share of their norm: equal but for the
order of sums on a GPU."""
LIGER_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Of results and gradients, as a share of the largest value."""


def run(settings: Settings, report: Report) -> None:
    """Measure, and compare.

    Raises:
        CheckFailed: losses or kernels differ by more than they may.
    """
    try:
        kernels = liger_kernels(settings.device)
    except ConfigError as error:
        kernels = None
        report.add(without_liger=error.what)
    if kernels is not None:
        _compare_kernels(kernels, settings.device, report)
    plain, padded = _packs(settings)
    config = model_config("256M", is_tiny=settings.is_tiny)
    folder = write_plan_folder(settings.work_dir / "model", config, tiles_a_side=1)
    ways: dict[str, list[dict[str, Any]]] = {
        "as they are": plain,
        "padded": padded,
        "padded, masters": padded,
    }
    if kernels is not None:
        ways["padded, Liger"] = ways["padded, Liger, masters"] = padded
    losses: dict[str, float] = {}

    def model_of(name: str) -> tuple[Any, MasterWeights | None]:
        model = packed_twin(random_model(config, settings.device), folder).train()
        if kernels is not None and "Liger" in name:
            fuse_layers(model, kernels)
        return model, MasterWeights(model) if name.endswith("masters") else None

    _compare_masters(model_of, plain[0], settings.device, report)
    for name, packs in ways.items():
        model, masters = model_of(name)
        figures = _measured(model, packs, settings.device, masters)
        losses[name] = figures["first_loss"]
        report.add(**{name: figures})
        del model
    for name, tolerance in TOLERANCES.items():
        if name not in losses:
            continue
        difference = abs(losses[name] / losses["as they are"] - 1)
        report.add(**{f"{name}, loss difference": difference})
        if not difference <= tolerance:
            raise CheckFailed(f"{name}: the first loss differs by {difference:.1e}")


def _packs(settings: Settings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the same packs as they are and padded, on the device."""
    counts = TINY_ROWS_A_PACK if settings.is_tiny else ROWS_A_PACK
    config = model_config("256M", is_tiny=settings.is_tiny)
    folder = write_plan_folder(settings.work_dir / "rows_model", config, tiles_a_side=1)
    maker = StepMaker(
        settings.work_dir,
        folder,
        picture_side_px=tile_side_px(config),
        num_pictures=-(-sum(counts) // QUESTIONS),
        questions=QUESTIONS,
    )
    both = [
        maker.make(counts, device=settings.device, batch_size=None, first_row=0, pads=pads)
        for pads in (False, True)
    ]
    plain, padded = ([pack for step in steps for pack in step.packs] for steps in both)
    return plain, padded


def _gradients(
    model: Any, masters: MasterWeights | None, pack: dict[str, Any], device: str
) -> dict[str, Tensor]:
    """Return the gradients of a pack under bfloat16 autocast, as the optimizer gets them."""
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = model(pack=pack, normalizer=100.0).loss
    loss.backward()
    if masters is not None:
        masters.add_gradients()
    trained = model if masters is None else masters.stepped
    return {
        name: value.grad.clone()
        for name, value in trained.named_parameters()
        if value.grad is not None
    }


def _compare_masters(
    model_of: Callable[[str], tuple[Any, MasterWeights | None]],
    pack: dict[str, Any],
    device: str,
    report: Report,
) -> None:
    """Compare a pack's gradients on master weights with those under autocast."""
    autocast, masters = (
        _gradients(*model_of(name), pack, device) for name in ("as they are", "masters")
    )
    if autocast.keys() != masters.keys():
        raise CheckFailed("masters: other parameters have gradients than under autocast")
    apart = sum(float((masters[name] - value).square().sum()) for name, value in autocast.items())
    size = sum(float(value.square().sum()) for value in autocast.values())
    equal = sum(torch.equal(masters[name], value) for name, value in autocast.items())
    difference = (apart / size) ** 0.5
    report.add(
        masters_gradients={"difference": difference, "equal": equal, "tensors": len(autocast)}
    )
    if not difference <= MASTERS_TOLERANCE:
        raise CheckFailed(f"masters: gradients differ from autocast's by {difference:.1e}")


def _launches(work: Callable[[], None], device: str) -> int | None:
    """Return how many kernels are launched, as CUDA's own profiler sees them; None without CUDA."""
    if device != "cuda":
        return None
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as profiled:
        work()
        torch.cuda.synchronize()
    events: Any = profiled.key_averages()
    return sum(event.count for event in events if "LaunchKernel" in event.key)


def _measured(
    model: Any, packs: list[dict[str, Any]], device: str, masters: MasterWeights | None
) -> Mapping[str, Any]:
    """Return what forward and backward take, once a few packs have been seen."""
    if device == "cuda":
        torch.cuda.empty_cache()
    losses: list[Tensor] = []

    def work(pack: dict[str, Any]) -> Callable[[], None]:
        def step() -> None:
            is_half = device == "cuda" or masters is not None
            with torch.autocast(device, dtype=torch.bfloat16) if is_half else nullcontext():
                loss = model(pack=pack, normalizer=100.0).loss
            loss.backward()
            losses.append(loss.detach())
            if masters is not None:
                masters.add_gradients()
                masters.stepped.zero_grad(set_to_none=True)
            model.zero_grad(set_to_none=True)

        return step

    before = num_graphs()
    warm = [seconds_of(work(pack), device) for pack in packs[:WARMUP]]
    seconds = [seconds_of(work(pack), device) for pack in packs]
    return {
        "kernels": _launches(work(packs[0]), device),
        "packs": len(packs),
        "shapes": len({(len(pack["input_ids"]), len(pack["target_ids"])) for pack in packs}),
        "first_s": warm[0],
        "pack_s": statistics.median(seconds),
        "pack_s_max": max(seconds),
        "graphs": num_graphs() - before,
        "reserved_gb": torch.cuda.memory_reserved() / 1e9 if device == "cuda" else 0.0,
        "first_loss": float(losses[0]),
    }


def _compare_kernels(kernels: FusedKernels, device: str, report: Report) -> None:
    random = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, device=device)

    norm = LlamaRMSNorm(576, eps=1e-5).to(device)
    angles = drawn(1, 300, 32).repeat(1, 1, 2)
    states = drawn(1, 300, 9, 64).transpose(1, 2), drawn(1, 300, 3, 64).transpose(1, 2)

    def stock_norm(hidden: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, (hidden,))

    for dtype, tolerance in LIGER_TOLERANCES.items():
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        cases: dict[str, tuple[Callable[..., Any], Callable[..., Any], tuple[Tensor, ...]]] = {
            "norm": (
                lambda hidden, weight: kernels.rms_norm(hidden, weight, 1e-5),
                stock_norm,
                (drawn(1, 300, 576), drawn(576)),
            ),
            "rotate": (
                lambda query, key: kernels.rotate(query, key, cos, sin),  # noqa: B023 - called here
                lambda query, key: apply_rotary_pos_emb(query, key, cos, sin),  # noqa: B023
                states,
            ),
            "gate": (
                kernels.gate,
                lambda first, second: silu(first) * second,
                (drawn(1, 300, 1536), drawn(1, 300, 1536)),
            ),
        }
        found = {
            name: largest_difference(ours, stock, [value.to(dtype) for value in inputs])
            for name, (ours, stock, inputs) in cases.items()
        }
        report.add(**{f"Liger, {dtype}".replace("torch.", ""): found})
        if not max(found.values()) <= tolerance:
            raise CheckFailed(f"Liger's kernels differ in {dtype}: {found}")


def largest_difference(
    ours: Callable[..., Any], stock: Callable[..., Any], inputs: list[Tensor]
) -> float:
    """Return the largest difference of results and gradients, as a share of the largest value."""
    found: list[list[Tensor]] = []
    for function in (ours, stock):
        leaves = [value.clone().requires_grad_() for value in inputs]
        # Not the leaves themselves: the rotary kernel overwrites what it gets.
        outputs = function(*(value * 1.0 for value in leaves))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        kept = [value.detach().clone() for value in outputs]
        torch.autograd.backward(outputs, [torch.sin(value) for value in kept])
        found.append([*kept, *(value.grad for value in leaves if value.grad is not None)])
    assert len(found[0]) == len(found[1])
    return max(
        float((one - other).float().abs().max() / other.float().abs().max())
        for one, other in zip(*found, strict=True)
    )
