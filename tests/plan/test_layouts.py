"""Which layouts a cluster can have, and why it cannot have others."""

from dataclasses import replace
from typing import Any

import pytest

from smolvlm.errors import ConfigError
from smolvlm.plan.devices import Device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.layouts import plan_layouts
from smolvlm.plan.many_devices import Cluster, Links
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload

SIX = Cluster(num_ranks=6, num_hosts=1, links=Links(within_host=100.0, between_hosts=10.0))


@pytest.fixture
def plan(run_config: Any, planned_model: PlannedModel, cpu: Device) -> RunPlan:
    """A run of 4 packs a step."""
    shape = shape_of_conversations(1, tokens=60, tiles=2, targets=4)
    workload = synthetic_workload(shape, num_packs=4, packs_per_step=4)
    around = Surroundings(device=cpu, uses_bf16=False)
    return plan_of(run_config(), planned_model, lambda _: workload, around, compares=False)


def test_what_is_possible_is_planned_and_the_rest_is_named(plan: RunPlan) -> None:
    found = plan_layouts(plan, SIX)
    # 4 packs go to 2 groups of 3 ranks or to one of 6, and neither to 6 ranks nor to 3 groups.
    assert [(one.engine, one.context_ranks) for one in found.plans] == [
        (engine, ranks) for engine in ("ddp", "fsdp2") for ranks in (3, 6)
    ]
    reasons = {
        (engine, count): one.reason
        for one in found.left_out
        for engine in one.engines
        for count in one.context_ranks
    }
    assert "cannot be dealt to 6 ranks" in reasons["ddp", 1]
    assert "cannot be dealt to 3 ranks" in reasons["fsdp2", 2]
    assert "DeepSpeed" in reasons["zero3", 3]
    assert len(reasons) + len(found.plans) == 4 * 4


def test_one_layout_that_is_asked_for_and_possible_stands_alone(plan: RunPlan) -> None:
    found = plan_layouts(plan, SIX, engine="fsdp2", context_ranks=3)
    assert [(one.engine, one.context_ranks) for one in found.plans] == [("fsdp2", 3)]
    assert found.left_out == []


@pytest.mark.parametrize(
    ("asked", "cluster", "where"),
    [
        ({"context_ranks": 4}, SIX, "--context-ranks 4"),
        ({"engine": "zero2", "context_ranks": 3}, SIX, "train.context_ranks"),
        ({"engine": "ddp", "context_ranks": 1}, SIX, "train.packs_per_step=4"),
        ({}, replace(SIX, num_hosts=4), "--hosts 4"),
        ({}, replace(SIX, num_ranks=22, num_hosts=2), "train.packs_per_step=4"),
    ],
)
def test_where_none_is_possible_the_first_is_refused(
    plan: RunPlan, asked: Any, cluster: Cluster, where: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plan_layouts(plan, cluster, **asked)
    assert where in str(error.value)


def test_a_preference_run_shares_no_sequence(
    plan: RunPlan, run_config: Any, planned_model: PlannedModel
) -> None:
    dpo = replace(plan, config=run_config("train.method=dpo"))
    found = plan_layouts(dpo, replace(SIX, num_ranks=4))
    assert {one.context_ranks for one in found.plans} == {1}
    assert any("a pair's two answers" in one.reason for one in found.left_out)
