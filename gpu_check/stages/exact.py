"""Stage 2: packed = alone on this device, at every head layout of the family.

In float32 and bfloat16. A pack of texts, trees, several pictures and clips goes through our model;
alone, each conversation goes through the stock class on what the stock processor makes of it. The
judge is alone in float64. Packed may be twice as far from it as alone is in the same precision, and
a little more (`SLACK`), in the loss and in each tower's gradient: what is compared is the
arithmetic, and rounding is measured and not guessed. Two layers a tower, published widths.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoProcessor

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import (
    SIZES,
    model_config,
    packed_twin,
    random_model,
    write_plan_folder,
)
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import planned_dataset, write_run
from smolvlm.build.configs import PublishedSize, tile_side_px
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.pack import Pack, on_device
from smolvlm.inspect.stock_inputs import stock_inputs
from smolvlm.model.towers import TOWERS, tower_of

Precision = Literal["float64", "float32", "bfloat16"]
NUM_LAYERS = 2
ROWS = Counts(texts=4, pictures=2, questions=3, pairs=2, clips=2)
TINY_ROWS = Counts(texts=2, pictures=1, questions=2, pairs=1, clips=1, frames=3)
SLACK: dict[Precision, float] = {"float32": 5e-6, "bfloat16": 2e-3}
"""Of gradients; of the loss, whose errors cancel between targets, `LOSS_SHARE` of it in bfloat16.
"""
LOSS_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The loss of all rows and the gradients, in float64."""

    loss: float
    gradients: dict[str, Tensor]


def run(settings: Settings, report: Report) -> None:
    """Compare at every layout.

    Raises:
        CheckFailed: packed is farther off than alone, or ids differ from the stock processor's.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    problems = []
    for size in SIZES:
        started = time.perf_counter()
        for name, figures in _compared(size, settings):
            worst = max(figures["allowed_share"].values())
            report.add(**{f"{size} {name}": figures})
            problems += (
                [f"{size} {name}: {worst:.2f} times what is allowed"] if not worst <= 1 else []
            )
        report.add(**{f"{size} seconds": time.perf_counter() - started})
        torch._dynamo.reset()  # graphs of all layouts would count towards the limit of recompiles
        if settings.device == "cuda":
            torch.cuda.empty_cache()
    if problems:
        raise CheckFailed("packed is not alone: " + "; ".join(problems))


def _compared(size: PublishedSize, settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each precision's figures at one layout."""
    config = model_config(size, is_tiny=settings.is_tiny, num_layers=NUM_LAYERS)
    place = settings.work_dir / size
    folder = write_plan_folder(place / "model", config, tiles_a_side=2)
    side_px = tile_side_px(config)
    writer = RowWriter(place / "rows", picture_side_px=2 * side_px, frame_side_px=side_px)
    mixture = writer.write(TINY_ROWS if settings.is_tiny else ROWS)
    data = {"image_splitting": True, "max_tokens_per_pack": 20_000, "max_tiles_per_pack": 1000}
    run_file = write_run(place / "run", model_dir=folder, mixture=mixture, data=data)
    dataset = planned_dataset(run_file, settings.device)
    pack = dataset[0]
    used = [row for rows in dataset.planned(0).samples for row in rows]
    assert sorted(used) == list(range(len(dataset.measured.lengths))), (
        "all rows are in the first pack"
    )
    stock = random_model(config, settings.device).eval()
    ours = packed_twin(stock, folder).eval()
    encoded = list(
        _stock_rows(dataset, used, AutoProcessor.from_pretrained(folder), settings.device)
    )
    normalizer = float(pack.target_weights.double().sum())
    singles: dict[Precision, StepResult] = {
        precision: _alone(stock, encoded, normalizer, precision)
        for precision in ("float64", "float32", "bfloat16")
    }
    truth = singles["float64"]
    for precision, slack in SLACK.items():
        packed = _errors(_packed(ours, pack, normalizer, precision, settings.device), truth)
        alone = _errors(singles[precision], truth)
        slacks = dict.fromkeys(packed, slack) | (
            {"loss": LOSS_SHARE * slack} if precision == "bfloat16" else {}
        )
        share = {name: packed[name] / (2 * alone[name] + slacks[name]) for name in packed}
        sizes = {
            "tokens": len(pack.input_ids),
            "tiles": len(pack.tiles),
            "conversations": len(used),
        }
        yield (
            precision,
            {**sizes, "loss": truth.loss, "packed": packed, "alone": alone, "allowed_share": share},
        )


def _stock_rows(
    dataset: PackDataset, rows: list[int], processor: Any, device: str
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Give what the stock processor makes of each row, and the positions that are learned.

    Raises:
        CheckFailed: its ids are not ours.
    """
    for number in rows:
        row = dataset.measured.conversations[number]
        layouts = dataset.layouts(row)
        (own,) = dataset.encoder.parts(row, layouts=layouts)
        inputs = stock_inputs(processor, row, layouts=layouts, settings=dataset.settings)
        if inputs["input_ids"][0].tolist() != own.input_ids.tolist():
            raise CheckFailed(f"{row.where}: ids differ from the stock processor's")
        positions = torch.from_numpy(own.learned).nonzero().squeeze(1)
        yield {name: value.to(device) for name, value in inputs.items()}, positions.to(device)


def _alone(
    stock: Any,
    rows: list[tuple[dict[str, Tensor], Tensor]],
    normalizer: float,
    precision: Precision,
) -> StepResult:
    """Run the rows one by one through the stock class."""
    model = stock.double() if precision == "float64" else stock.float()
    total = 0.0
    for inputs, positions in rows:
        with _autocast(model.device.type, precision):
            output = model(**inputs, use_cache=False, logits_to_keep=positions - 1)
        picked = output.logits[0]
        picked = picked if precision == "float64" else picked.float()
        target_ids = inputs["input_ids"][0, positions]
        loss = torch.nn.functional.cross_entropy(picked, target_ids, reduction="sum") / normalizer
        loss.backward()
        total += float(loss.detach())
    return StepResult(loss=total, gradients=_taken_gradients(model))


def _packed(
    ours: Any, pack: Pack, normalizer: float, precision: Precision, device: str
) -> StepResult:
    with _autocast(device, precision):
        loss = ours(pack=on_device(pack.model_tensors(), device), normalizer=normalizer).loss
    loss.backward()
    return StepResult(loss=float(loss.detach()), gradients=_taken_gradients(ours))


def _autocast(device: str, precision: Precision) -> AbstractContextManager[Any]:
    return (
        torch.autocast(device, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()
    )


def _taken_gradients(model: Any) -> dict[str, Tensor]:
    """Return the gradients in float64, and leave the model without any."""
    found = {
        name: value.grad.double()
        for name, value in model.named_parameters()
        if value.grad is not None
    }
    model.zero_grad(set_to_none=True)
    return found


def _errors(step: StepResult, truth: StepResult) -> dict[str, float]:
    """Return the relative error of the loss and of each tower's gradient, in norm."""
    errors = {"loss": abs(step.loss - truth.loss) / abs(truth.loss)}
    if missing := truth.gradients.keys() ^ step.gradients.keys():
        raise CheckFailed(
            f"gradients of {', '.join(sorted(missing)[:5])} are there on one side alone"
        )
    for tower in TOWERS:
        names = [name for name in truth.gradients if tower_of(name) == tower]
        difference = sum(
            float((step.gradients[name] - truth.gradients[name]).norm() ** 2) for name in names
        )
        size = sum(float(truth.gradients[name].norm() ** 2) for name in names)
        errors[tower] = (difference / size) ** 0.5
    return errors
