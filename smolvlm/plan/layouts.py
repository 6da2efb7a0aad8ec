"""Which engines and numbers of context ranks a run can have on a cluster, and what each takes.

In: a run's plan on one device, a `Cluster`, and what is asked for. Out: `Layouts`: a plan of each
that is possible, and why the others are not. What is refused is what training refuses, and packs
that cannot be dealt evenly.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smolvlm.errors import ConfigError
from smolvlm.plan.many_devices import (
    ENGINES,
    Cluster,
    ClusterPlan,
    Engine,
    check_hosts,
    plan_cluster,
)
from smolvlm.plan.run_plan import RunPlan

MOST_CONTEXT_RANKS = 8
"""Of those that are tried where no number is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Layouts that are not possible, for one reason."""

    engines: Sequence[Engine]
    context_ranks: Sequence[int]
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Layouts:
    """What was looked at."""

    plans: Sequence[ClusterPlan]
    left_out: Sequence[LeftOut]


def plan_layouts(
    plan: RunPlan,
    cluster: Cluster,
    *,
    engine: Engine | None = None,
    context_ranks: int | None = None,
) -> Layouts:
    """Plan each layout that is possible.

    Args:
        plan: of the run on one device.
        cluster: the devices.
        engine: None is each of them.
        context_ranks: None is each number up to 8 that divides the devices of a host.

    Raises:
        ConfigError: none is possible; of the first of them.
    """
    check_hosts(cluster)
    plans: list[ClusterPlan] = []
    engines: dict[tuple[int, str], list[Engine]] = defaultdict(list)
    refusal: ConfigError | None = None
    for name in ENGINES if engine is None else (engine,):
        for count in _counts(cluster) if context_ranks is None else (context_ranks,):
            try:
                plans.append(plan_cluster(plan, cluster, engine=name, context_ranks=count))
            except ConfigError as error:
                refusal = refusal or error
                engines[count, error.what].append(name)
    if not plans and refusal is not None:
        raise refusal
    counts: dict[tuple[tuple[Engine, ...], str], list[int]] = defaultdict(list)
    for (count, reason), names in engines.items():
        counts[tuple(names), reason].append(count)
    left_out = [
        LeftOut(engines=names, context_ranks=ranks, reason=reason)
        for (names, reason), ranks in counts.items()
    ]
    return Layouts(plans=plans, left_out=left_out)


def _counts(cluster: Cluster) -> Iterator[int]:
    here = cluster.ranks_a_host
    yield from (count for count in range(1, min(here, MOST_CONTEXT_RANKS) + 1) if not here % count)
