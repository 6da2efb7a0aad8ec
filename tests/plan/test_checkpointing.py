"""What a run would be with other towers' activations computed again."""

from typing import Any

import pytest

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.plan.devices import Device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.tables import as_object, memory_table, model_line
from smolvlm.plan.workload import synthetic_workload

VISION = "train.vision_tower_lr=1e-5"


@pytest.fixture
def plan(run_config: Any, planned_model: PlannedModel, cpu: Device) -> Any:
    """Makes the plan of a run of one large pack."""
    shape = shape_of_conversations(1, tokens=2000, tiles=40, targets=4)
    workload = synthetic_workload(shape, num_packs=1, packs_per_step=1)
    around = Surroundings(device=cpu, uses_bf16=False)

    def make(*overrides: str) -> RunPlan:
        return plan_of(run_config(*overrides), planned_model, lambda _: workload, around)

    return make


def test_the_other_choices_are_planned_too_in_memory_and_time(plan: Any) -> None:
    alone = {other.checkpointing: other for other in plan(VISION).others}
    assert list(alone) == ["language_model", "vision_tower", True]
    kept = plan(VISION)
    for choice, other in alone.items():
        chosen = plan(VISION, f"train.activation_checkpointing={str(choice).lower()}")
        assert chosen.checkpointing == choice
        assert (chosen.memory, chosen.time.total_s) == (other.memory, other.total_s)
        assert other.memory.total < kept.memory.total
        assert other.total_s > kept.time.total_s
    for tower in ("language_model", "vision_tower"):
        assert alone[True].memory.total < alone[tower].memory.total
        assert alone[True].total_s > alone[tower].total_s


@pytest.mark.parametrize(
    ("choice", "others"), [("false", [True]), ("true", [False]), ("language_model", [False])]
)
def test_a_frozen_tower_leaves_one_other_choice(
    plan: Any, choice: str, others: list[Checkpointing]
) -> None:
    found = plan(f"train.activation_checkpointing={choice}")
    assert [other.checkpointing for other in found.others] == others


def test_tables_and_the_object_name_every_choice(plan: Any) -> None:
    found = plan(VISION, "train.activation_checkpointing=language_model")
    table = memory_table(found)
    assert [column.header for column in table.columns][1:] == [
        "as it is",
        "without activation checkpointing",
        "with activation checkpointing of the vision tower",
        "with activation checkpointing",
    ]
    assert list(table.columns[0].cells)[-2:] == ["in all", "time of the run"]
    assert model_line(found).endswith("with activation checkpointing of the language model")
    content: Any = as_object(found)
    assert content["checkpointing"] == "language_model"
    assert [one["checkpointing"] for one in content["other_checkpointing"]] == [
        False,
        "vision_tower",
        True,
    ]
    assert content["other_checkpointing"][0]["memory"]["total"] > content["memory"]["total"]
