"""`python -m benchmarks.plan_published`: plans beside what others published, with every assumption
named.

First the memory of SmolVLM-2.2B under QLoRA in 8 bits with four conversations a step, beside the
published 16 GB; then hours of whole runs from their parameters and tokens. Nothing is trained.
"""

import sys
from dataclasses import dataclass
from typing import cast

import torch

from smolvlm.build.configs import published_config
from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig
from smolvlm.plan.devices import PRODUCT_SHARE, named_device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload
from smolvlm.protocols import VisionLanguageConfig

PUBLISHED_GB = 16
BATCH, TILES, TEXT = 4, 13, 60
"""Conversations; tiles of a 640 x 480 px picture scaled to 1,536 px (4 x 3 and a global view) of 81
tokens each; tokens of tags, question and answer."""
TOKENS = TILES * 81 + TEXT


def qlora(*overrides: str) -> RunConfig:
    """Return the settings of a QLoRA run in 8 bits."""
    content = {
        "model": {"path": "HuggingFaceTB/SmolVLM-Instruct", "dtype": "bfloat16"},
        "data": {"mixture": [], "max_tokens_per_pack": 8192, "vision_cache": False},
        "train": {"output_dir": "runs/qlora", "connector_lr": 0, "packs_per_step": 1},
        "adapters": {"language": {"type": "lora", "r": 8}},
        "quantization": {"bits": 8, "towers": ["language", "vision", "connector"]},
    }
    return config_from(content, overrides, where="qlora")


def qlora_plan(config: RunConfig, *, targets: int) -> RunPlan:
    """Plan a step of four conversations on an L4.

    Args:
        config: the settings.
        targets: learned tokens of a conversation; where logits are made of every token, all.
    """
    shape = shape_of_conversations(BATCH, tokens=TOKENS, tiles=TILES, targets=targets)
    workload = synthetic_workload(shape, num_packs=1, packs_per_step=1)
    model = PlannedModel(config=cast("VisionLanguageConfig", published_config("2.2B")))
    around = Surroundings(device=named_device("L4"), uses_bf16=True)
    return plan_of(config, model, lambda _: workload, around, compares=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """A run that others published."""

    name: str
    device: str
    num_devices: int
    hours: float
    weight_tokens: float
    """Parameters times the tokens or patches that pass through them, summed over the parts."""
    passes: int
    """Passes over the weights, each 2 FLOPs a parameter and token: 3 where all train, 2 where
    gradients only pass through."""
    share: float
    """Of the peak rate."""
    assumed: str

    @property
    def peak_hours(self) -> float:
        """What it would take at the devices' peak rate."""
        peak = named_device(self.device).rates_for(torch.bfloat16).product_flops / PRODUCT_SHARE
        return 2.0 * self.passes * self.weight_tokens / (peak * self.num_devices) / 3600

    @property
    def planned_hours(self) -> float:
        return self.peak_hours / self.share


RUNS = (
    PublishedRun(
        name="LLaVA-1.5-13B, pretraining",
        device="A100-80GB",
        num_devices=8,
        hours=5.5,
        weight_tokens=13.4e9 * 558e3 * 620,
        passes=2,
        share=0.5,
        assumed="620 tokens a row (576 of the picture); 50 % of the peak",
    ),
    PublishedRun(
        name="LLaVA-1.5-13B, fine-tuning",
        device="A100-80GB",
        num_devices=8,
        hours=20,
        weight_tokens=13.4e9 * 665e3 * 1050,
        passes=3,
        share=0.5,
        assumed="1,050 tokens a row; 50 % of the peak",
    ),
    PublishedRun(
        name="LLaVA-OneVision-1.5-8B",
        device="A800",
        num_devices=128,
        hours=96,
        weight_tokens=8.5e9 * 64e9,
        passes=3,
        share=0.45,
        assumed="all of the 64 G tokens; the 45 % that is published",
    ),
    PublishedRun(
        name="nanoVLM-222M",
        device="H100",
        num_devices=1,
        hours=6,
        weight_tokens=5 * 1.7e6 * (85e6 * 196 + 135e6 * (49 + 128)),
        passes=3,
        share=0.5,
        assumed="5 epochs; 196 patches, 49 tokens of them and 128 of text a row; 50 % of the peak",
    ),
)


def main() -> int:
    """Print both tables."""
    print(f"SmolVLM-2.2B, QLoRA in 8 bits, {BATCH} x {TOKENS} tokens, published {PUBLISHED_GB} GB")
    for name, targets in (("logits where learned", 12), ("logits everywhere", TOKENS)):
        plan = qlora_plan(qlora(), targets=targets)
        (other,) = plan.others
        for words, memory in (("", plan.memory), (", checkpointing", other.memory)):
            print(
                f"  {name + words:<38}{memory.total / 1e9:6.1f} GB: "
                f"model {memory.model / 1e9:.1f}, activations {memory.activations / 1e9:.1f}, "
                f"logits {memory.logits / 1e9:.1f}, context {memory.program / 1e9:.1f}",
                flush=True,
            )
    print("hours of whole runs, from parameters and tokens")
    for run in RUNS:
        ratio = run.hours / run.planned_hours
        print(
            f"  {run.name:<28}{run.planned_hours:8.1f} planned{run.hours:8.1f} published "
            f"({ratio:.1f}x; {run.peak_hours / run.hours:.0%} of the peak)  {run.assumed}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
