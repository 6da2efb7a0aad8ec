"""Speed of a training step at one published size, beside plain transformers.

Weights are random. Everything trains, bf16 autocast over float32 weights, fused AdamW. Inputs lie
on the device, so loaders count for nothing. Plain transformers is the stock class with SDPA on
batches padded to their longest row. Both step on the same rows in turns; their first losses must
agree. Reported for each: seconds a step, rows, tokens and tiles a second, the share of the device's
measured bf16 matrix rate (by the products that the system really does), and peak memory. Of ours
also how long the first steps compiled, and how many graphs twenty packs of other lengths made
besides.
"""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, packed_twin, random_model, write_plan_folder
from gpu_check.material.steps import ReadyStep, StepMaker, StepShape
from gpu_check.stages.timing import held_gb, num_graphs, peak_gb, reset_peak, seconds_of
from smolvlm.build.configs import tile_side_px
from smolvlm.train.flops import ComputeCost, compute_cost, peak_flops_per_s

SHAPE = StepShape(pictures=16, questions=4, batch_size=16)
TINY_SHAPE = StepShape(pictures=2, questions=3, batch_size=3)
WARMUP, ROUNDS = 3, 5
OTHER_PACKS = range(1, 21)
"""Rows of the packs that recompiling is counted over."""
LOSS_TOLERANCE = 5e-3
"""Relative, of the first losses: two orders of bf16 products on the same rows. In float32 they
differ by 1e-6.
"""
LEARNING_RATE = 1e-5


@dataclass(kw_only=True)
class System:
    """A model that makes steps, and what its steps took."""

    name: str
    model: Any
    losses_of: Callable[[ReadyStep], list[Callable[[], Tensor]]]
    """A step to its forward passes, each giving its share of the loss."""
    device: str
    first_s: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak_gb: float = 0.0

    def __post_init__(self) -> None:
        parameters = list(self.model.parameters())
        self._optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

    def step(self, step: ReadyStep) -> float:
        """Make an optimizer step and return its seconds."""
        total = torch.zeros((), device=self.device)
        is_cuda = self.device == "cuda"

        def work() -> None:
            for forward in self.losses_of(step):
                with torch.autocast("cuda", dtype=torch.bfloat16) if is_cuda else nullcontext():
                    loss = forward()
                loss.backward()
                total.add_(loss.detach())
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

        seconds = seconds_of(work, self.device)
        self.losses.append(float(total))
        return seconds


def run(settings: Settings, report: Report) -> None:
    """Measure the size that the stage's argument names.

    Raises:
        CheckFailed: the two systems' first losses differ.
    """
    size: Any = settings.argument
    if settings.device == "cuda":
        torch._logging.set_logs(recompiles=True)  # the log says why each graph was made
    shape = TINY_SHAPE if settings.is_tiny else SHAPE
    config = model_config(size, is_tiny=settings.is_tiny)
    folder = write_plan_folder(settings.work_dir / "model", config, tiles_a_side=1)
    maker = _step_maker(settings, folder, shape, picture_side_px=tile_side_px(config))
    steps = maker.make(
        [shape.num_rows] * (WARMUP + ROUNDS), device=settings.device, batch_size=shape.batch_size
    )
    peak = peak_flops_per_s(
        settings.device, torch.bfloat16 if settings.device == "cuda" else torch.float32
    )
    report.add(rows_a_step=shape.num_rows, matrix_tflops_per_s=peak / 1e12)
    ours = System(
        name="smolvlm",
        model=packed_twin(random_model(config, settings.device), folder).train(),
        losses_of=lambda step: _packed_losses(ours.model, step),
        device=settings.device,
    )
    cost = compute_cost(ours.model)
    _warm_up(ours, steps[:WARMUP], report, before_gb=0.0)
    before_gb = held_gb(settings.device)
    plain = System(
        name="transformers",
        model=random_model(config, settings.device).train(),  # the same seed, so the same weights
        losses_of=lambda step: _plain_losses(plain.model, step),
        device=settings.device,
    )
    _warm_up(plain, steps[:WARMUP], report, before_gb=before_gb)
    _take_turns(ours, plain, steps[WARMUP:])
    for system in (ours, plain):
        report.add(**{system.name: _figures(system, steps[WARMUP:], cost, peak)})
    ratios = [theirs / own for own, theirs in zip(ours.seconds, plain.seconds, strict=True)]
    report.add(ours_is_faster=statistics.median(ratios), compile_s=_compile_seconds(ours))
    others = maker.make(OTHER_PACKS, device=settings.device, batch_size=None)
    _count_recompiles(ours, others, report)
    difference = abs(ours.losses[0] - plain.losses[0]) / plain.losses[0]
    report.add(first_losses=[ours.losses[0], plain.losses[0]], first_loss_difference=difference)
    if not difference <= LOSS_TOLERANCE:
        raise CheckFailed(f"first losses differ by {difference:.1e}: the two do not learn the same")


def _step_maker(
    settings: Settings, folder: Path, shape: StepShape, *, picture_side_px: int
) -> StepMaker:
    """Return what draws rows enough for all steps."""
    num_rows = (WARMUP + ROUNDS) * shape.num_rows + sum(OTHER_PACKS)
    return StepMaker(
        settings.work_dir,
        folder,
        picture_side_px=picture_side_px,
        num_pictures=-(-num_rows // shape.questions),
        questions=shape.questions,
    )


def _take_turns(ours: System, plain: System, steps: list[ReadyStep]) -> None:
    """Measure both on each step, now one first, now the other."""
    for number, step in enumerate(steps):
        for system in (ours, plain) if number % 2 == 0 else (plain, ours):
            system.seconds.append(system.step(step))


def _packed_losses(model: Any, step: ReadyStep) -> list[Callable[[], Tensor]]:
    return [
        lambda pack=pack: model(pack=pack, normalizer=float(step.num_targets)).loss
        for pack in step.packs
    ]


def _plain_losses(model: Any, step: ReadyStep) -> list[Callable[[], Tensor]]:
    return [
        lambda batch=batch: (
            model(**batch, num_items_in_batch=step.num_targets, use_cache=False).loss
        )
        for batch in step.batches
    ]


def _warm_up(system: System, steps: list[ReadyStep], report: Report, *, before_gb: float) -> None:
    """Make the first steps, compiling included, and note the memory that they took."""
    reset_peak(system.device)
    system.first_s = [system.step(step) for step in steps]
    system.peak_gb = peak_gb(system.device) - before_gb
    report.add(
        **{f"{system.name} first steps": {"seconds": system.first_s, "peak_gb": system.peak_gb}}
    )


def _compile_seconds(system: System) -> float:
    return sum(system.first_s) - len(system.first_s) * statistics.median(system.seconds)


def _figures(
    system: System, steps: list[ReadyStep], cost: ComputeCost, peak: float
) -> dict[str, float]:
    """Return a system's rates over the measured steps."""
    seconds = sum(system.seconds)
    if system.name == "smolvlm":
        inputs = [pack for step in steps for pack in step.packs]
        tokens = computed_tokens = sum(len(pack["input_ids"]) for pack in inputs)
        tiles = sum(len(pack["tiles"]) for pack in inputs)
        heads = sum(len(pack["target_ids"]) for pack in inputs)
    else:
        inputs = [batch for step in steps for batch in step.batches]
        tokens = sum(int(batch["attention_mask"].sum()) for batch in inputs)
        tiles = sum(
            batch["pixel_values"].shape[0] * batch["pixel_values"].shape[1] for batch in inputs
        )
        computed_tokens = heads = sum(batch["input_ids"].numel() for batch in inputs)
    flops = cost.pack(num_tokens=computed_tokens, num_computed_tiles=tiles, num_targets=heads)
    return {
        "step_s": statistics.median(system.seconds),
        "step_s_min": min(system.seconds),
        "step_s_max": max(system.seconds),
        "rows_per_s": sum(step.num_rows for step in steps) / seconds,
        "tokens_per_s": tokens / seconds,
        "tiles_per_s": tiles / seconds,
        "padding_share": 1 - tokens / computed_tokens,
        "share_of_matrix_rate": flops / seconds / peak,
        "peak_gb": system.peak_gb,
    }


def _count_recompiles(ours: System, steps: list[ReadyStep], report: Report) -> None:
    """Step on packs of other lengths and note how many graphs that made, and the longest step."""
    before = num_graphs()
    seconds = [ours.step(step) for step in steps]
    lengths = [len(step.packs[0]["input_ids"]) for step in steps]
    report.add(
        recompiles={
            "graphs_before": before,
            "graphs_more": num_graphs() - before,
            "packs": len(steps),
            "tokens": f"{min(lengths)} to {max(lengths)}",
            "slowest_s": max(seconds),
            "median_s": statistics.median(seconds),
        }
    )
