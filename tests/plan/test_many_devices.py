"""The formulae of many devices, by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from smolvlm.errors import ConfigError
from smolvlm.plan.devices import Device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.many_devices import ENGINES, Cluster, Links, plan_cluster
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload

CLUSTER = Cluster(
    num_ranks=8,
    num_hosts=2,
    links=Links(within_host=100.0, between_hosts=10.0),
    link_share=1.0,
    overlap=0.0,
)


@pytest.fixture
def plan(run_config: Any, planned_model: PlannedModel, cpu: Device) -> RunPlan:
    """A run of 16 packs a step, all alike."""
    workload = synthetic_workload(
        shape_of_conversations(1, tokens=60, tiles=2, targets=4), num_packs=16, packs_per_step=16
    )
    around = Surroundings(device=cpu, uses_bf16=False)
    return plan_of(run_config(), planned_model, lambda _: workload, around, compares=False)


def test_bytes_go_over_both_links() -> None:
    # Of 1,000 bytes three quarters come from the host's 3 others; each of the 4 carries a quarter
    # of the other host's half.
    assert CLUSTER.gathering_s(1000.0) == pytest.approx(750 / 100 + 0.5 * 1000 / 4 / 10)
    assert CLUSTER.gathering_s(1000.0, num_ranks=2) == pytest.approx(500 / 100)
    assert replace(CLUSTER, link_share=0.5).gathering_s(1000.0) == pytest.approx(2 * 20.0)


def test_ddp_sums_gradients_once_a_step(plan: RunPlan) -> None:
    found = plan_cluster(plan, CLUSTER, engine="ddp")
    passes = float(plan.pass_s[:2].sum())
    assert found.computing_s == pytest.approx(passes + plan.optimizer_s)
    assert found.communicating_s == pytest.approx(2 * CLUSTER.gathering_s(plan.size.gradient_bytes))
    assert found.step_s == pytest.approx(found.computing_s + found.communicating_s)
    assert found.waiting == pytest.approx(0.0)
    assert found.model_bytes == plan.size.weight_bytes + _states(plan)


def _states(plan: RunPlan) -> int:
    return plan.size.gradient_bytes + plan.size.optimizer_bytes


def test_shards_take_their_share_and_gather_for_each_pack(plan: RunPlan) -> None:
    found = plan_cluster(plan, CLUSTER, engine="fsdp2")
    whole, weights = plan.shares.whole_weights, plan.size.weight_bytes
    # Layers are gathered forward and backward, what is outside of them once.
    root = plan.shares.root_weights
    gathered = CLUSTER.gathering_s(2 * (weights - whole - root) + root)
    summed = CLUSTER.gathering_s(plan.size.gradient_bytes)
    assert 0 < root < weights - whole
    assert found.communicating_s == pytest.approx(2 * (gathered + summed))
    # On a CPU three buffers of the latter are new pages, and all is copied out or in.
    moved = 2 * (2 * (weights - whole - root) + root + plan.size.gradient_bytes)
    copying = 2 * (moved / 20.0 + 3 * root / 2.0)
    passes = float(plan.pass_s[:2].sum())
    assert found.computing_s == pytest.approx(passes + copying + plan.optimizer_s / 8)
    expected = whole + (weights - whole) // 8 + plan.shares.largest_units + _states(plan) // 8
    assert found.model_bytes == expected


def test_what_a_backend_takes_more_for_its_collectives_counts(plan: RunPlan) -> None:
    dear = replace(CLUSTER, gather_cost=4.0, scatter_cost=8.0)
    for engine in ("fsdp2", "zero3"):
        alone = plan_cluster(plan, CLUSTER, engine=engine)
        found = plan_cluster(plan, dear, engine=engine)
        summed = 2 * CLUSTER.passing_s(plan.size.gradient_bytes)
        more = 4 * (alone.communicating_s - summed) + 8 * summed
        assert found.communicating_s == pytest.approx(more)
    assert plan_cluster(plan, dear, engine="ddp") == plan_cluster(plan, CLUSTER, engine="ddp")


def test_context_ranks_share_a_sequence(plan: RunPlan) -> None:
    alone = plan_cluster(plan, CLUSTER, engine="ddp")
    shared = plan_cluster(plan, CLUSTER, engine="ddp", context_ranks=2)
    # Half as many groups with twice the packs, each in half the time but for what is not shared.
    unshared = 4 * plan.empty_pass_s
    assert 0 < unshared < alone.computing_s
    assert shared.computing_s == pytest.approx(alone.computing_s + unshared / 2)
    keys = 4 * 2 * CLUSTER.gathering_s(plan.shares.keys_and_values, num_ranks=2)
    assert shared.communicating_s == pytest.approx(alone.communicating_s + keys)
    assert shared.total_bytes < alone.total_bytes


def test_keys_and_values_are_gathered_again_where_activations_are(plan: RunPlan) -> None:
    kept = plan_cluster(plan, CLUSTER, engine="ddp", context_ranks=2)
    again, language, tower = (
        plan_cluster(
            replace(plan, checkpointing=choice), CLUSTER, engine="ddp", context_ranks=2
        ).communicating_s
        for choice in (True, "language_model", "vision_tower")
    )
    keys = 4 * CLUSTER.gathering_s(plan.shares.keys_and_values, num_ranks=2)
    assert again - kept.communicating_s == pytest.approx(keys)
    assert (language, tower) == (again, kept.communicating_s)


def test_a_gpu_that_shares_a_sequence_still_launches_everything(plan: RunPlan) -> None:
    gpu = replace(plan, device=replace(plan.device, is_overlapped=True), empty_pass_s=2.0)
    gpu = replace(gpu, pass_s=np.full(16, 3.0))
    found = plan_cluster(gpu, CLUSTER, engine="ddp", context_ranks=2)
    assert found.computing_s - gpu.optimizer_s == pytest.approx(4 * 2.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_communication_hides_behind_computing_on_a_gpu(plan: RunPlan, engine: Any) -> None:
    gpu = replace(plan, device=replace(plan.device, is_overlapped=True))
    open_ = plan_cluster(gpu, CLUSTER, engine=engine)
    hidden = plan_cluster(gpu, replace(CLUSTER, overlap=0.5), engine=engine)
    assert hidden.step_s < open_.step_s
    assert hidden.communicating_s == open_.communicating_s
    assert 0 <= hidden.communication_share < open_.communication_share < 1


def test_ranks_wait_for_the_slowest(plan: RunPlan) -> None:
    uneven = np.array([8.0, *([1.0] * 15)])
    found = plan_cluster(replace(plan, pass_s=uneven), CLUSTER, engine="ddp")
    # The dearest pack is dealt with one of 1: 9 beside 2 on each of the others.
    assert found.computing_s - plan.optimizer_s == pytest.approx(9.0)
    assert found.waiting == pytest.approx(1 - (23 / 8) / 9)


@pytest.mark.parametrize(
    ("cluster", "context_ranks", "where"),
    [
        (replace(CLUSTER, num_hosts=3), 1, "--hosts 3"),
        (CLUSTER, 3, "--context-ranks 3"),
        (replace(CLUSTER, num_ranks=24), 1, "train.packs_per_step=16"),
    ],
)
def test_what_cannot_be_dealt_is_refused(
    plan: RunPlan, cluster: Cluster, context_ranks: int, where: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plan_cluster(plan, cluster, engine="ddp", context_ranks=context_ranks)
    assert where in str(error.value)
