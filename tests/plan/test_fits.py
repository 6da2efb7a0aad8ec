"""Which settings are tried, and in which order what fits is proposed.

Plans are stand-ins whose memory and time follow from the settings: what they are of a true run is
other files' business.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smolvlm.config.schema import RunConfig
from smolvlm.datasets.packing.lengths import LengthTable
from smolvlm.errors import ConfigError
from smolvlm.model.checkpointing import checkpointed_towers
from smolvlm.plan.devices import Device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.fits import Proposal, bytes_of, proposals
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload

OWN = ("train.vision_tower_lr=1e-5", "data.max_tokens_per_pack=1200")


@pytest.mark.parametrize(
    ("text", "size"),
    [("16GB", 16 * 10**9), ("15.5 GiB", 15.5 * 2**30), ("900mb", 9e8), ("2G", 2e9)],
)
def test_sizes_are_read(text: str, size: float) -> None:
    assert bytes_of(text) == int(size)


@pytest.mark.parametrize("text", ["", "GB", "0GB", "12", "sixteen", "16 TB", "1,5GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="16GB or 900MB"):
        bytes_of(text)


def lengths(*tokens: int) -> LengthTable:
    columns = np.array(tokens, np.int32)
    return LengthTable(
        num_tokens=columns,
        num_tiles=0 * columns + 1,
        num_supervised_tokens=0 * columns + 1,
        prefix_tokens=0 * columns,
        prefix_tiles=0 * columns,
        prefix_group=0 * columns - 1,
        repeats=np.ones(len(columns), np.float32),
    )


@pytest.fixture
def plan_with(run_config: Any, planned_model: PlannedModel, cpu: Device) -> Any:
    """Makes plans: LoRA saves half, 8 and 4 bits more, checkpointing of a tower a tenth at a price
    in time: that of the language model the lower one."""
    shape = shape_of_conversations(1, tokens=40, tiles=1, targets=2)
    workload = synthetic_workload(shape, num_packs=1, packs_per_step=1)
    around = Surroundings(device=cpu, uses_bf16=False)
    plan = plan_of(run_config(), planned_model, lambda _: workload, around, compares=False)

    def make(config: RunConfig) -> RunPlan:
        size, total_s = config.data.max_tokens_per_pack, 100.0
        if config.adapters.language is not None:
            size, total_s = size // 2, 80.0
        if config.quantization.bits is not None:
            size, total_s = size * config.quantization.bits // 16, total_s + 5
        if config.rate_of("vision") == 0:
            total_s -= 30
        towers = checkpointed_towers(config.train.activation_checkpointing)
        for tower in towers:
            size = size * 9 // 10
            total_s += {"language_model": 5, "vision_tower": 20}[tower]
        total_s += config.train.packs_per_step
        zero = dict.fromkeys(("program", "weights", "gradients", "optimizer", "activations"), 0)
        zero |= dict.fromkeys(("logits", "cache", "loading", "holes"), 0)
        return replace(
            plan,
            memory=replace(plan.memory, **{**zero, "weights": size}),
            time=replace(plan.time, total_s=total_s),
        )

    return make


@pytest.fixture
def found(run_config: Any, plan_with: Any) -> Any:
    """Proposes for a limit and a longest row."""

    def propose(limit_bytes: int, longest: int = 100) -> list[Proposal]:
        return proposals(
            run_config(*OWN),
            lengths(longest),
            limit_bytes=limit_bytes,
            reload=lambda more: run_config(*OWN, *more),
            plan_with=plan_with,
        )

    return propose


def test_the_fastest_comes_first_and_the_run_itself_is_among_them(found: Any) -> None:
    everything = found(10**12)
    times = [proposal.plan.time.total_s for proposal in everything]
    assert times == sorted(times)
    asked = {proposal.overrides for proposal in everything if not proposal.changes_training}
    choices = ("true", "language_model", "vision_tower")
    checkpointing = {(f"train.activation_checkpointing={choice}",) for choice in choices}
    assert asked == {(), *checkpointing}
    others = {proposal.overrides for proposal in everything if proposal.changes_training}
    assert not any("checkpointing=vision_tower" in " ".join(overrides) for overrides in others)
    frozen, lora = "train.vision_tower_lr=0", "adapters.language.type=lora"
    assert everything[0].overrides == (lora, "train.language_model_lr=0.0001", frozen)
    assert any("quantization.bits=4" in proposal.overrides for proposal in everything)


def test_what_is_proposed_fits(found: Any) -> None:
    fitting = found(650)
    assert fitting
    assert all(proposal.plan.memory.total <= 650 for proposal in fitting)
    assert () not in [proposal.overrides for proposal in fitting]


def test_packs_shrink_to_the_longest_row_and_a_step_learns_as_much(found: Any) -> None:
    halved = (
        "data.max_tokens_per_pack=600",
        "data.max_tiles_per_pack=32",
        "train.packs_per_step=8",
    )
    assert halved in [proposal.overrides for proposal in found(650)]
    assert halved not in [proposal.overrides for proposal in found(650, longest=700)]


def test_nothing_fits_into_nothing(found: Any) -> None:
    assert found(1) == []


def test_a_way_that_the_settings_refuse_is_left_out(run_config: Any) -> None:
    def refuse(_: object) -> RunConfig:
        raise ConfigError("no", where="here", fix="none")

    assert (
        proposals(
            run_config(),
            lengths(10),
            limit_bytes=10**12,
            reload=refuse,
            plan_with=lambda _: pytest.fail("planned"),
        )
        == []
    )
