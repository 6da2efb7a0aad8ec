"""`python -m benchmarks.hardware_table`: which of the family's models trains on what, and for how
long, as the README's table.

Nothing is trained and no file is read: each row is `smolvlm plan` of the published dimensions and
of conversations of one size; activation checkpointing where pictures are cut into tiles and for the
largest model. Memory follows from the operations of a step; hours rest on the makers'
rates and on the shares of them that `smolvlm/plan/devices.py` states, which no GPU has confirmed.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from smolvlm.build.configs import PublishedSize, published_config, tokens_per_tile
from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig
from smolvlm.plan.devices import named_device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload
from smolvlm.protocols import VisionLanguageConfig

ROWS = 10_000
"""Rows of an epoch, a picture each."""
PER_STEP = 8
"""Conversations an optimizer step, all in one pack."""
SPLIT_TILES = 13
"""Of a picture of 4 : 3: four by three and an overview."""
TEXT, TARGETS = 60, 12
"""Tokens of tags, question and answer; those that are learned."""
DEVICES = ("L4", "A100-80GB")
MEMORY_SIZES_GB = (8, 12, 16, 24, 40, 48, 80)
"""Of GPUs that people have."""

LORA: Mapping[str, Any] = {"adapters.language.type": "lora", "adapters.language.r": 8}
ALL_TRAIN: Mapping[str, Any] = {"train.vision_tower_lr": 1e-5}
CHECKPOINTING: Mapping[str, Any] = {"train.activation_checkpointing": True}
KINDS: tuple[tuple[PublishedSize, str, Mapping[str, Any]], ...] = (
    ("256M", "everything", ALL_TRAIN),
    ("256M", "LoRA", LORA),
    ("500M", "everything", ALL_TRAIN),
    ("500M", "LoRA", LORA),
    ("2.2B", "everything", ALL_TRAIN | CHECKPOINTING),
    ("2.2B", "LoRA", LORA | CHECKPOINTING),
    ("2.2B", "QLoRA, 4 bits", LORA | CHECKPOINTING | {"quantization.bits": 4}),
)
"""Size, what trains, and the settings that say so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HardwareRow:
    """A row of the table."""

    size: PublishedSize
    trains: str
    tiles: int
    plans: Mapping[str, RunPlan]
    """By device."""

    @property
    def memory_gb(self) -> float:
        """10^9 bytes at the peak."""
        return max(plan.memory.total for plan in self.plans.values()) / 1e9

    @property
    def smallest_gb(self) -> int | None:
        """The smallest of `MEMORY_SIZES_GB` that holds it."""
        return next((size for size in MEMORY_SIZES_GB if size >= self.memory_gb), None)

    def hours(self, device: str) -> float:
        """Of an epoch of `ROWS` rows, the first."""
        return self.plans[device].time.first_step_s * ROWS / PER_STEP / 3600


def settings(size: PublishedSize, overrides: Mapping[str, Any]) -> RunConfig:
    """Return a run's settings: the defaults, but for what is to train."""
    content: dict[str, Any] = {
        "model": {"path": "HuggingFaceTB/SmolVLM-Instruct"},
        "data": {"mixture": [], "max_tokens_per_pack": 16384},
        "train": {"output_dir": "runs/plan", "packs_per_step": 1},
    }
    return config_from(content, [f"{key}={value}" for key, value in overrides.items()], where=size)


def hardware_row(
    size: PublishedSize, trains: str, overrides: Mapping[str, Any], *, tiles: int
) -> HardwareRow:
    """Plan a step of `PER_STEP` conversations with a picture of so many tiles each."""
    dimensions = published_config(size)
    tokens = tiles * tokens_per_tile(dimensions) + TEXT
    shape = shape_of_conversations(PER_STEP, tokens=tokens, tiles=tiles, targets=TARGETS)
    workload = synthetic_workload(shape, num_packs=1, packs_per_step=1)
    model = PlannedModel(config=cast("VisionLanguageConfig", dimensions))
    config = settings(size, overrides)
    plans = {}
    for name in DEVICES:
        around = Surroundings(device=named_device(name), uses_bf16=True)
        plans[name] = plan_of(config, model, lambda _: workload, around, compares=False)
    return HardwareRow(size=size, trains=trains, tiles=tiles, plans=plans)


def markdown(rows: Sequence[Sequence[HardwareRow]]) -> str:
    """Return the table: a line a model and kind of training, its pictures side by side."""
    head = ["model", "what trains"]
    for row in rows[0]:
        picture = "one tile" if row.tiles == 1 else f"{row.tiles} tiles"
        head += [f"{picture}: peak memory", "fits", *(f"{name}, an epoch" for name in DEVICES)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for pair in rows:
        cells = [pair[0].size, pair[0].trains]
        for row in pair:
            fits = "-" if row.smallest_gb is None else f"{row.smallest_gb} GB"
            cells += [f"{row.memory_gb:.1f} GB", fits]
            cells += [_hours(row.hours(name)) for name in DEVICES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"


def main() -> int:
    """Print the table."""
    rows = []
    for size, trains, overrides in KINDS:
        whole = hardware_row(size, trains, overrides, tiles=1)
        split = hardware_row(size, trains, {**overrides, **CHECKPOINTING}, tiles=SPLIT_TILES)
        rows.append((whole, split))
        print(f"planned: {size}, {trains}", file=sys.stderr, flush=True)
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
