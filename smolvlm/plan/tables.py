"""A plan as tables and as an object: what `smolvlm plan` prints."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime

from rich.table import Table

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.pages.token_text import plural
from smolvlm.plan.devices import BANDWIDTH_SHARE, PRODUCT_SHARE
from smolvlm.plan.fits import Proposal
from smolvlm.plan.layouts import LeftOut
from smolvlm.plan.many_devices import LINKS, Cluster, ClusterPlan
from smolvlm.plan.memory import MemoryPlan
from smolvlm.plan.parameters import PartSize
from smolvlm.plan.run_plan import DISK_BYTES, RunPlan

MEMORY_LINES = (
    ("program", "the program itself"),
    ("weights", "weights"),
    ("gradients", "gradients"),
    ("optimizer", "optimizer"),
    ("activations", "activations"),
    ("logits", "logits"),
    ("cache", "pack and cached features"),
    ("loading", "file of quantised weights"),
    ("holes", "freed, and still resident"),
)


def shown_bytes(size: float) -> str:
    """Return `0.4 MB`, `12 MB` or `3.21 GB`."""
    if size >= 1e9:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 or not size else f"{size / 1e6:.1f} MB"


def shown_time(seconds: float) -> str:
    """Return `0.42 s`, `3 min 20 s`, `5 h 7 min` or `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def parameter_table(plan: RunPlan) -> Table:
    """Return parameters by part, and what they take."""
    table = Table("part", "parameters", "trained", "weights", "gradients", "optimizer", box=None)
    for part, size in (*plan.parts.items(), ("in all", plan.size)):
        if size.num_parameters:
            table.add_row(part, *_cells(size))
    return table


def _cells(size: PartSize) -> tuple[str, ...]:
    return (
        f"{size.num_parameters:,}",
        f"{size.num_trained:,}" if size.num_trained else "frozen",
        *map(shown_bytes, (size.weight_bytes, size.gradient_bytes, size.optimizer_bytes)),
    )


def memory_table(plan: RunPlan) -> Table:
    """Return the peak of memory by part, and what it and the run's time would be with other towers'
    activations computed again."""
    plans: Sequence[MemoryPlan] = [plan.memory, *(other.memory for other in plan.others)]
    words = [_checkpointing_words(other.checkpointing) for other in plan.others]
    table = Table("memory, at its peak", "as it is", *words, box=None)
    for field, name in MEMORY_LINES:
        values = [getattr(memory, field) for memory in plans]
        if any(values):
            table.add_row(name, *map(shown_bytes, values))
    table.add_row("in all", *(shown_bytes(memory.total) for memory in plans))
    if plan.others:
        times = [plan.time.total_s, *(other.total_s for other in plan.others)]
        table.add_row("time of the run", *map(shown_time, times))
    return table


def _checkpointing_words(choice: Checkpointing) -> str:
    if isinstance(choice, bool):
        return f"{'with' if choice else 'without'} activation checkpointing"
    return f"with activation checkpointing of the {choice.replace('_', ' ')}"


def model_line(plan: RunPlan) -> str:
    """Return which model trains, and how."""
    size = plan.size
    return (
        f"{'model':<9}{plan.config.model.path}: {size.num_parameters:,} parameters, "
        f"{size.num_trained:,} of them trained; {plan.config.train.method.type}, "
        f"{_precision(plan)}, {_checkpointing_words(plan.checkpointing)}"
    )


def _precision(plan: RunPlan) -> str:
    return "bfloat16" if plan.uses_bf16 else "float32"


def _step_line(plan: RunPlan) -> str:
    """Return what a step of the run learns from."""
    work, steps = plan.workload, max(plan.workload.num_steps, 1)
    tokens, learned, tiles = (
        float(column.sum()) / steps
        for column in (work.num_tokens, work.num_targets, work.num_tiles)
    )
    return (
        f"{'a step':<9}{plural(work.packs_per_step, 'pack')}; on average {tokens:,.0f} tokens "
        f"({learned:,.0f} of them learned), {tiles:,.0f} tiles, {plan.flops / steps:.3g} FLOPs"
    )


def run_lines(plan: RunPlan) -> Iterator[str]:
    """Yield what the run goes through, and what that takes."""
    work, time = plan.workload, plan.time
    yield f"{'mixture':<9}{plural(work.num_rows, 'row')}, and {work.num_skipped:,} skipped"
    yield (
        f"{'run':<9}{plural(work.num_steps, 'step')}: {plural(work.num_packs, 'pack')}, "
        f"{int(work.num_tokens.sum()):,} tokens ({int(work.num_targets.sum()):,} of them learned), "
        f"{int(work.num_tiles.sum()):,} tiles, {plan.flops:.3g} FLOPs"
    )
    yield _step_line(plan)
    yield f"{'device':<9}{_device_words(plan)}"
    cpu = f" ({shown_time(time.cpu_s)} of CPU)" if time.cpu_s is not None else ""
    yield f"{'time':<9}a step {shown_time(time.first_step_s)}{cpu}"
    if time.later_step_s < 0.99 * time.first_step_s:
        yield f"{'':<9}a step {shown_time(time.later_step_s)} once features are kept"
    if time.before_s:
        yield f"{'':<9}before the first step {shown_time(time.before_s)}: the reference's answers"
    yield f"{'':<9}the run {shown_time(time.total_s)}, without reading, evaluation and saving"
    if plan.vision_cache is not None:
        yield plan.vision_cache.line()
    if plan.energy_kwh is None:
        yield f"{'energy':<9}give --watts"
    else:
        yield f"{'energy':<9}the run {plan.energy_kwh:.3g} kWh at {plan.watts:g} W"


def _device_words(plan: RunPlan) -> str:
    """Return what computes, in which precision, and where its rates come from."""
    device = plan.device
    threads = f", {plural(device.threads, 'thread')}" if device.is_cpu else ""
    rates = "rates of its maker"
    if device.measured_at is not None:
        when = datetime.fromtimestamp(device.measured_at).strftime("%Y-%m-%d %H:%M")
        rates = f"rates measured here, {when}"
    return f"{device.name}{threads}, {_precision(plan)}; {rates}"


def assumption_lines(plan: RunPlan) -> Iterator[str]:
    """Yield what the figures rest on."""
    if not plan.device.is_cpu:
        yield (
            f"assumed: {PRODUCT_SHARE:.0%} of the peak rate in products, {BANDWIDTH_SHARE:.0%} of "
            "the bandwidth elsewhere"
        )
    if plan.vision_cache is not None and plan.vision_cache.use.num_repeated:
        yield f"assumed: {DISK_BYTES / 1e9:g} GB/s from and to the vision cache's disk"
    if plan.memory.holes:
        yield "freed, and still resident: what the C library's heap keeps; it moves between runs"


def as_object(plan: RunPlan) -> dict[str, object]:
    """Return the plan as `--json` prints it; bytes, seconds, FLOPs, kWh."""
    work = plan.workload
    return {
        "model_path": plan.config.model.path,
        "device": plan.device.name,
        "bf16": plan.uses_bf16,
        "parts": {part: asdict(size) for part, size in plan.parts.items()},
        "rows": work.num_rows,
        "skipped": work.num_skipped,
        "steps": work.num_steps,
        "packs": work.num_packs,
        "packs_per_step": work.packs_per_step,
        "tokens": int(work.num_tokens.sum()),
        "learned_tokens": int(work.num_targets.sum()),
        "tiles": int(work.num_tiles.sum()),
        "flops": plan.flops,
        "checkpointing": plan.checkpointing,
        "memory": _memory_object(plan.memory),
        "other_checkpointing": [
            {
                "checkpointing": other.checkpointing,
                "memory": _memory_object(other.memory),
                "total_s": other.total_s,
            }
            for other in plan.others
        ],
        "time": asdict(plan.time),
        "watts": plan.watts,
        "energy_kwh": plan.energy_kwh,
        "vision_cache": None if plan.vision_cache is None else plan.vision_cache.as_object(),
    }


def _memory_object(memory: MemoryPlan) -> dict[str, int]:
    return {**asdict(memory), "total": memory.total}


def proposal_table(proposals: Sequence[Proposal]) -> Table:
    """Return what fits, the fastest first; overrides on lines of their own are printed below."""
    table = Table("", "memory", "time in all", "learns", box=None)
    for number, proposal in enumerate(proposals, start=1):
        learned = "what is asked" if not proposal.changes_training else _learned(proposal)
        table.add_row(
            f"{number}",
            shown_bytes(proposal.plan.memory.total),
            shown_time(proposal.plan.time.total_s),
            learned,
        )
    return table


def _learned(proposal: Proposal) -> str:
    text = " ".join(proposal.overrides)
    words = ["LoRA in the language model"] if "adapters.language" in text else []
    words += [f"over {bits} bits" for bits in (8, 4) if f"quantization.bits={bits}" in text]
    words += ["the tower frozen"] if "vision_tower_lr=0" in text else []
    return ", ".join(words)


def cluster_table(plans: Sequence[ClusterPlan]) -> Table:
    """Return a line for each engine and number of context ranks."""
    table = Table(
        *("engine", "context ranks", "a step", "compute", "network", "its share"),
        *("waiting", "model", "a rank's memory"),
        box=None,
    )
    for plan in plans:
        table.add_row(
            plan.engine,
            f"{plan.context_ranks}",
            *map(shown_time, (plan.step_s, plan.computing_s, plan.communicating_s)),
            f"{plan.communication_share:.1%}",
            f"{plan.waiting:.1%}",
            *map(shown_bytes, (plan.model_bytes, plan.total_bytes)),
        )
    return table


def cluster_lines(plan: RunPlan, cluster: Cluster) -> Iterator[str]:
    """Yield what a step learns from, the devices, and what their links are taken to be."""
    links = cluster.links
    yield _step_line(plan)
    yield (
        f"{'devices':<9}{cluster.num_ranks} on {plural(cluster.num_hosts, 'host')}, each "
        f"{_device_words(plan)}"
    )
    yield (
        f"{'links':<9}{links.within_host / 1e9:g} GB/s of a device within a host, "
        f"{links.between_hosts / 1e9:g} between hosts ({_source_of_links(plan)}), of which "
        f"{cluster.link_share:.0%} is taken; beside computing {cluster.overlap:.0%} of the time"
    )


def _source_of_links(plan: RunPlan) -> str:
    if plan.device.name in LINKS:
        return "stated for it"
    return "of PCIe and a 100 Gb/s adapter: none are known of it"


def left_out_lines(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Yield which layouts are not possible, and why."""
    for one in left_out:
        ranks = ", ".join(map(str, one.context_ranks))
        noun = "context rank" if ranks == "1" else "context ranks"
        yield f"not possible: {', '.join(one.engines)} with {ranks} {noun}: {one.reason}"


def cluster_object(one: ClusterPlan, plan: RunPlan, cluster: Cluster) -> dict[str, object]:
    """Return one engine's plan as `--json` prints it; seconds, bytes, bytes a second."""
    work = plan.workload
    return {
        **asdict(one),
        "communication_share": one.communication_share,
        "model_path": plan.config.model.path,
        "device": plan.device.name,
        "bf16": plan.uses_bf16,
        "devices": cluster.num_ranks,
        "hosts": cluster.num_hosts,
        "links": asdict(cluster.links),
        "packs_per_step": work.packs_per_step,
        "tokens_per_step": float(work.num_tokens.sum()) / max(work.num_steps, 1),
    }
