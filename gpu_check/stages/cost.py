"""Do seconds follow FLOPs? Fits seconds = a x tower FLOPs + b x language FLOPs over packs.

In: packs of texts alone, of pictures with one question, and with many, of several lengths, at the
256M size. Out: a and b as rates, and how far the fit is off; the same with a constant, which is
what a pack costs however small it is. The planner deals packs to ranks by such a cost, so a and b
that are far apart, or a large constant, are worth knowing.
"""

import statistics
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, packed_twin, random_model, write_plan_folder
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import planned_dataset, write_run
from gpu_check.stages.timing import seconds_of
from smolvlm.build.configs import tile_side_px
from smolvlm.datasets.packing.pack import Pack, on_device
from smolvlm.train.flops import ComputeCost, compute_cost

KINDS = {
    "texts": Counts(texts=60),
    "one_question": Counts(pictures=32),
    "many_questions": Counts(pictures=6, questions=12),
}
BUDGETS = (512, 1024, 2048, 4096)
TINY_BUDGETS = (256, 512)
PACKS_A_BUDGET = 2
WARMUP, REPEATS = 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """One pack's cost and time."""

    tower_flops: float
    language_flops: float
    seconds: float


def run(settings: Settings, report: Report) -> None:
    """Time packs and fit.

    Raises:
        CheckFailed: a rate came out negative, so the seconds do not follow the FLOPs.
    """
    config = model_config("256M", is_tiny=settings.is_tiny)
    folder = write_plan_folder(settings.work_dir / "model", config, tiles_a_side=1)
    model = packed_twin(random_model(config, settings.device), folder).train()
    cost = compute_cost(model)
    timed = [
        _timed(model, pack, cost, settings.device) for pack in _packs(settings, config, folder)
    ]
    sizes = np.array([[own.tower_flops, own.language_flops] for own in timed])
    seconds = np.array([own.seconds for own in timed])
    report.add(packs=len(timed), seconds_min=float(seconds.min()), seconds_max=float(seconds.max()))
    plain = _fitted(sizes, seconds)
    report.add(
        fit=plain, with_constant=_fitted(np.column_stack([sizes, np.ones(len(sizes))]), seconds)
    )
    report.add(
        timed=[f"{own.tower_flops:.3g} {own.language_flops:.3g} {own.seconds:.4g}" for own in timed]
    )
    if settings.device == "cuda" and min(plain["a"], plain["b"]) <= 0:
        raise CheckFailed("a or b is not above 0: the seconds do not follow the FLOPs")


def _packs(settings: Settings, config: Any, folder: Any) -> list[Pack]:
    """Return packs of each kind and each budget."""
    packs = []
    for kind, counts in KINDS.items():
        place = settings.work_dir / kind
        mixture = RowWriter(place / "rows", picture_side_px=tile_side_px(config)).write(counts)
        for budget in TINY_BUDGETS if settings.is_tiny else BUDGETS:
            data = {"max_tokens_per_pack": budget}
            run_file = write_run(place / str(budget), model_dir=folder, mixture=mixture, data=data)
            dataset = planned_dataset(run_file, device)
            found = (dataset[index] for index in range(len(dataset)))
            packs += [pack for pack in found if pack.where][:PACKS_A_BUDGET]
    return packs


def _timed(model: Any, pack: Pack, cost: ComputeCost, device: str) -> Timed:
    """Return a pack's FLOPs, and the median seconds of forward and backward."""
    tensors = on_device(pack.model_tensors(), device)

    def work() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16) if device == "cuda" else nullcontext():
            loss = model(pack=tensors, normalizer=float(len(pack.target_ids))).loss
        loss.backward()
        model.zero_grad(set_to_none=True)

    for _ in range(WARMUP):
        work()
    language = cost.per_token * len(pack.input_ids) + cost.per_target * len(pack.target_ids)
    return Timed(
        tower_flops=cost.per_tile * len(pack.tiles),
        language_flops=language,
        seconds=statistics.median(seconds_of(work, device) for _ in range(REPEATS)),
    )


def _fitted(columns: np.ndarray, seconds: np.ndarray) -> dict[str, float]:
    """Return the least-squares coefficients, as seconds and as rates, and how far they are off."""
    scale = columns.max(axis=0)
    weights = np.linalg.lstsq(columns / scale, seconds, rcond=None)[0] / scale
    left = seconds - columns @ weights
    names = ("a", "b", "constant_s")[: len(weights)]
    spread = float(((seconds - seconds.mean()) ** 2).sum())
    return {
        **{name: float(value) for name, value in zip(names, weights, strict=True)},
        "tower_tflops_per_s": float(1 / weights[0] / 1e12),
        "language_tflops_per_s": float(1 / weights[1] / 1e12),
        "r_squared": 1 - float((left**2).sum()) / spread,
        "largest_relative_error": float(np.abs(left / seconds).max()),
    }
