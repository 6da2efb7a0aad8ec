"""A run on many devices: time of a step, what communication takes of it, waiting, memory of each.

In: a run's plan on one device, and a `Cluster`. Out: a `ClusterPlan` for an engine and a number of
context ranks. The formulae stand in `docs/scaling.md`, "What a run on many devices costs"; nothing
here was measured on a cluster.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64

from smolvlm.config.context_ranks import context_problems
from smolvlm.config.engine import EngineName
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.plan.devices import Device
from smolvlm.plan.run_plan import RunPlan
from smolvlm.plan.times import mapping_seconds

Engine = Literal["ddp", "zero2", "fsdp2", "zero3"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
_SHARDS_WEIGHTS: frozenset[Engine] = frozenset({"fsdp2", "zero3"})
_SHARDS_STATE: frozenset[Engine] = frozenset({"zero2", "fsdp2", "zero3"})
OVERLAP = 0.8
"""Of the time that communication may go on beside computing on a GPU, what it uses."""
LINK_SHARE = 0.8
"""Of a link's stated speed that a collective reaches."""
BACKWARD_SHARE = 2 / 3
"""Of forward and backward together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Links:
    """How fast a device sends; bytes a second in one direction."""

    within_host: float
    between_hosts: float


LINKS: Mapping[str, Links] = {
    "H200": Links(within_host=450e9, between_hosts=50e9),
    "H100": Links(within_host=450e9, between_hosts=50e9),
    "A100-80GB": Links(within_host=300e9, between_hosts=25e9),
    "A100-40GB": Links(within_host=300e9, between_hosts=25e9),
    "A800": Links(within_host=200e9, between_hosts=25e9),
}
"""Stated speeds: NVLink of the maker's data sheet, and one adapter of 400 (H) or 200 Gb/s (A) a
device."""
OTHER_LINKS = Links(within_host=25e9, between_hosts=12.5e9)
"""PCIe 4.0 with 16 lanes, and 100 Gb/s, where nothing else is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Devices and how they are joined."""

    num_ranks: int
    num_hosts: int
    links: Links
    link_share: float = LINK_SHARE
    overlap: float = OVERLAP
    gather_cost: float = 1.0
    """What gathering takes, of what its bytes take on the links; gloo copies them about."""
    scatter_cost: float = 1.0
    """The same of sums of which each keeps its share."""

    @property
    def ranks_a_host(self) -> int:
        return self.num_ranks // self.num_hosts

    def gathering_s(self, num_bytes: float, *, num_ranks: int | None = None) -> float:
        """Return what it takes until each of some ranks has all of so many bytes, a share of which
        each had."""
        return self.gather_cost * self.passing_s(num_bytes, num_ranks=num_ranks)

    def scattering_s(self, num_bytes: float, *, num_ranks: int | None = None) -> float:
        """Return what it takes until each of some ranks has its share of a sum."""
        return self.scatter_cost * self.passing_s(num_bytes, num_ranks=num_ranks)

    def passing_s(self, num_bytes: float, *, num_ranks: int | None = None) -> float:
        """Return what the links take to bring each rank the shares of the others; a sum that all
        have in the end takes it twice.

        Args:
            num_bytes: of the whole.
            num_ranks: neighbours within a host; None is all ranks.
        """
        if num_ranks is not None:
            share = (num_ranks - 1) / num_ranks
            return share * num_bytes / (self.links.within_host * self.link_share)
        here, hosts = self.ranks_a_host, self.num_hosts
        within = (here - 1) / here * num_bytes / self.links.within_host
        between = (hosts - 1) / hosts * num_bytes / here / self.links.between_hosts
        return (within + between) / self.link_share


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterPlan:
    """A step on many devices; seconds, and bytes of one rank."""

    engine: Engine
    context_ranks: int
    step_s: float
    computing_s: float
    """Of the rank that has most to do."""
    communicating_s: float
    """In all, whether beside computing or not."""
    waiting: float
    """Share of the ranks' computing time that is spent waiting for the slowest."""
    model_bytes: int
    """Weights, gradients and the optimizer's state."""
    total_bytes: int

    @property
    def communication_share(self) -> float:
        """Share of the step in which nothing but communication goes on."""
        return max(0.0, 1 - self.computing_s / self.step_s) if self.step_s else 0.0


def links_of(device: Device) -> Links:
    """Return a device's links, as they are stated."""
    return LINKS.get(device.name, OTHER_LINKS)


def check_hosts(cluster: Cluster) -> None:
    """Refuse devices that the hosts do not share evenly.

    Raises:
        ConfigError: says which number to change.
    """
    if cluster.num_ranks % cluster.num_hosts:
        raise ConfigError(
            f"{cluster.num_ranks} devices are not shared evenly by {cluster.num_hosts} hosts",
            where=f"--hosts {cluster.num_hosts}",
            fix="name a number that divides the devices",
        )


def check_layout(plan: RunPlan, cluster: Cluster, engine: Engine, context_ranks: int) -> None:
    """Refuse what training would, and a cluster that the run's packs cannot be dealt to.

    Raises:
        ConfigError: says which setting or number to change.
    """
    check_hosts(cluster)
    if context_ranks > 1:
        _check_context(plan.config, engine)
    if cluster.ranks_a_host % context_ranks:
        raise ConfigError(
            f"{context_ranks} ranks of a context do not fit evenly into a host's "
            f"{cluster.ranks_a_host}",
            where=f"--context-ranks {context_ranks}",
            fix="name a number that divides the devices of a host",
        )
    data_ranks = cluster.num_ranks // context_ranks
    if plan.workload.packs_per_step % data_ranks:
        raise ConfigError(
            f"the {plan.workload.packs_per_step} packs of a step cannot be dealt to {data_ranks} "
            "ranks",
            where=f"train.packs_per_step={plan.workload.packs_per_step}",
            fix=f"set it to a multiple of {data_ranks}",
        )


def _check_context(config: RunConfig, engine: Engine) -> None:
    """Refuse what cannot work where several ranks hold a pack together."""
    of_run: EngineName = "deepspeed" if engine in ("zero2", "zero3") else engine
    train = config.train.model_copy(update={"engine": of_run, "context_ranks": 2})
    for problem in context_problems(config.model_copy(update={"train": train})):
        raise ConfigError(problem.what, where=problem.key, fix=problem.fix)


def plan_cluster(
    plan: RunPlan, cluster: Cluster, *, engine: Engine, context_ranks: int = 1
) -> ClusterPlan:
    """Return what a step takes on many devices.

    Args:
        plan: of the run on one device.
        cluster: the devices.
        engine: how ranks share the work.
        context_ranks: how many neighbours share each sequence.

    Raises:
        ConfigError: the run's packs cannot be dealt so.
    """
    check_layout(plan, cluster, engine, context_ranks)
    data_ranks = cluster.num_ranks // context_ranks
    packs = plan.workload.packs_per_step // data_ranks
    slowest, mean = _loads(plan.pass_s, plan.workload.packs_per_step, data_ranks)
    passes = _shared_s(plan, slowest, packs, context_ranks)
    sharded = cluster.num_ranks if engine in _SHARDS_STATE else 1
    optimizer_s = plan.optimizer_s / sharded
    gathered, hideable = _communication(plan, cluster, engine=engine, packs=packs, passes=passes)
    context = packs * _context_s(plan, cluster, context_ranks)
    hidden = min(gathered, cluster.overlap * hideable) if plan.device.is_overlapped else 0.0
    model_bytes, total_bytes = _memory(plan, engine, cluster.num_ranks, context_ranks)
    computing = passes + packs * _copying_s(plan, engine) + optimizer_s
    return ClusterPlan(
        engine=engine,
        context_ranks=context_ranks,
        step_s=computing + gathered - hidden + context,
        computing_s=computing,
        communicating_s=gathered + context,
        waiting=max(0.0, 1 - mean / slowest) if slowest else 0.0,
        model_bytes=model_bytes,
        total_bytes=total_bytes,
    )


def _shared_s(plan: RunPlan, seconds: float, packs: int, context_ranks: int) -> float:
    """Return what passes of some packs take where ranks share each: what a pack without tokens
    takes is not shared."""
    if context_ranks == 1:
        return seconds
    alone = min(packs * plan.empty_pass_s, seconds)
    if plan.device.is_overlapped:
        return max(seconds / context_ranks, alone)
    return alone + (seconds - alone) / context_ranks


def _loads(
    seconds: Float64[np.ndarray, " pack"], packs_per_step: int, num_ranks: int
) -> tuple[float, float]:
    """Return the mean over steps of what the busiest rank computes, and of what all do.

    Packs are dealt dearest first to whoever has least, as `deal_to_ranks` deals them.
    """
    places = packs_per_step // num_ranks
    slowest: list[float] = []
    for step in seconds.reshape(-1, packs_per_step):
        loads, counts = np.zeros(num_ranks), np.zeros(num_ranks, int)
        for cost in sorted(step.tolist(), reverse=True):
            rank = int(np.where(counts < places, loads, np.inf).argmin())
            loads[rank] += cost
            counts[rank] += 1
        slowest.append(float(loads.max()))
    mean = float(seconds.sum()) / num_ranks / max(len(slowest), 1)
    return float(np.mean(slowest)) if slowest else 0.0, mean


def _communication(
    plan: RunPlan, cluster: Cluster, *, engine: Engine, packs: int, passes: float
) -> tuple[float, float]:
    """Return what a step's collectives take, and beside how much computing they may go on."""
    size = plan.size
    if engine == "ddp":
        return 2 * cluster.passing_s(size.gradient_bytes), BACKWARD_SHARE * passes / packs
    gradients = cluster.scattering_s(size.gradient_bytes)
    if engine == "zero2":
        trained = cluster.gathering_s(plan.shares.trained_weights)
        return packs * gradients + trained, BACKWARD_SHARE * passes
    gathered = _gathered_bytes(plan, engine)
    return packs * (cluster.gathering_s(gathered) + gradients), passes


def _gathered_bytes(plan: RunPlan, engine: Engine) -> int:
    """Return the bytes of weights that a pack's pass gathers: each layer forward and backward, and
    under FSDP2 what is outside of layers once."""
    if engine == "zero3":
        return 2 * plan.size.weight_bytes
    once = plan.shares.root_weights
    return 2 * (plan.size.weight_bytes - plan.shares.whole_weights - once) + once


def _copying_s(plan: RunPlan, engine: Engine) -> float:
    """Return what FSDP2 takes of a pack's pass to copy weights out of the buffer that they are
    gathered in, and gradients into the one that they are summed in.

    On a CPU the buffers of what is outside of layers, and its weights, are new pages each time.
    """
    if engine != "fsdp2":
        return 0.0
    moved = 2 * (_gathered_bytes(plan, engine) + plan.size.gradient_bytes)
    plain_bytes = plan.device.rates_for(torch.float32).plain_bytes
    fresh = mapping_seconds(3 * plan.shares.root_weights, plan.device)
    return moved / plain_bytes + fresh


def _context_s(plan: RunPlan, cluster: Cluster, context_ranks: int) -> float:
    """Return what keys and values of a pack take: gathered once, and again where activations are
    computed again, and their gradients summed."""
    if context_ranks == 1:
        return 0.0
    size = plan.shares.keys_and_values
    times = 2 if plan.checkpointing in (True, "language_model") else 1
    gathered = times * cluster.gathering_s(size, num_ranks=context_ranks)
    return gathered + cluster.scattering_s(size, num_ranks=context_ranks)


def _memory(plan: RunPlan, engine: Engine, num_ranks: int, context_ranks: int) -> tuple[int, int]:
    """Return what the model takes of one rank, and all together."""
    size, memory = plan.size, plan.memory
    states = size.gradient_bytes + size.optimizer_bytes
    weights = size.weight_bytes
    if engine in _SHARDS_STATE:
        states //= num_ranks
    if engine in _SHARDS_WEIGHTS:
        whole = plan.shares.whole_weights if engine == "fsdp2" else 0
        weights = whole + (weights - whole) // num_ranks + plan.shares.largest_units
    model = weights + states
    passing = memory.activations + memory.logits + memory.cache
    return model, model + passing // context_ranks + memory.program + memory.holes
