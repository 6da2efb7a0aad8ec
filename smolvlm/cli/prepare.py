"""`smolvlm prepare`: measure a mixture once, on all cores, and say what it is made of.

The sizes of all rows are kept in the cache folder, where `smolvlm train` finds them; a preparation
that was stopped resumes where it was. Exit status 1 where training would stop at bad rows.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from smolvlm.cli.interruption import MeasuredRows, says_what_is_kept
from smolvlm.cli.progress import measuring_bar
from smolvlm.cli.source_notes import source_notes
from smolvlm.cli.train import to_stderr
from smolvlm.datasets.builder import one_pass
from smolvlm.datasets.packing.length_cache import Engine
from smolvlm.datasets.packing.measured import MeasuredSet, SourceCount
from smolvlm.datasets.packing.plan import Plan, plan_training
from smolvlm.pages.token_text import plural
from smolvlm.runs.mixture import cache_worth, mixture_settings, prepare_mixture
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say_json

TRAINING_STOPS = 1
SHOWN_CAUSES = 5
"""Reasons of bad rows that are named of each source."""


def run_preparation(
    target: Path,
    overrides: Sequence[str],
    *,
    model: str | None,
    engine: Engine,
    num_workers: int | None,
    allow_outside_root: bool,
    as_json: bool,
) -> None:
    """Prepare a mixture, or the mixture of a run file; exit status 1 where training would stop.

    Args:
        target: a mixture's YAML, or a run file's.
        overrides: of the run file.
        model: whose processor measures a bare mixture; None is the released 256M checkpoint's.
        engine: what measures.
        num_workers: processes of the local engine; None is one a core.
        allow_outside_root: as `data.allow_outside_root`.
        as_json: print one object a source on standard output.
    """
    settings = mixture_settings(
        target, overrides, model, allow_outside_root=allow_outside_root, say=to_stderr
    )
    done = MeasuredRows()
    with says_what_is_kept(done.notes), measuring_bar(also=done) as report:
        measured = prepare_mixture(settings, engine=engine, num_workers=num_workers, report=report)
    if as_json:
        for count in measured.counts:
            say_json(_as_object(count))
    console = terminal_console()
    plan = plan_training(measured.lengths, one_pass(settings.data))
    _show(measured, plan, console)
    if (worth := cache_worth(settings, measured, plan)) is not None:
        console.print(worth.line(), markup=False, highlight=False, soft_wrap=True)
    for count in measured.counts:
        for line in _bad_rows(count, max_bad_fraction=settings.data.max_bad_fraction):
            console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if any(count.refusal is not None for count in measured.counts):
        raise typer.Exit(TRAINING_STOPS)


def _as_object(count: SourceCount) -> dict[str, object]:
    return {
        "name": count.name,
        "rows": count.num_rows,
        "filtered": count.num_filtered,
        "used": count.num_sampled,
        "tokens": count.num_tokens,
        "tiles": count.num_tiles,
        "modality": max(count.modalities, key=lambda name: count.modalities[name], default=None),
        "modalities": dict(count.modalities),
        "repeat": count.repeat,
        "skipped": dict(count.skip_reasons),
        "bad_rows": [
            {
                "where": cause.where,
                "kind": cause.kind,
                "message": cause.what,
                "fix": cause.fix,
                "rows": cause.num_rows,
            }
            for cause in count.causes
        ],
        "on_bad_sample": count.policy,
        "training_stops": count.refusal is not None,
        "not_read": list(count.unread_keys),
        "left_out": list(count.left_out_keys),
    }


def _bad_rows(count: SourceCount, *, max_bad_fraction: float) -> Iterator[str]:
    """Yield what is wrong with a source's rows, and what training does about it."""
    if not count.causes:
        return
    bad = f"bad rows in {count.name}: {count.num_skipped:,} of {count.num_sampled:,}"
    yield f"{bad}; {_training_does(count, max_bad_fraction=max_bad_fraction)}"
    if count.num_skipped == 1 and count.refusal is not None:
        yield f"- {count.refusal}"
        return
    for cause in count.causes[:SHOWN_CAUSES]:
        yield f"- {cause}"
    if len(count.causes) > SHOWN_CAUSES:
        yield f"- and {len(count.causes) - SHOWN_CAUSES:,} more reasons: --json"
    if count.refusal is not None:
        yield f"  fix: {count.refusal.fix}"


def _training_does(count: SourceCount, *, max_bad_fraction: float) -> str:
    """Return what becomes of a source with bad rows when it is trained on."""
    if count.refusal is None:
        return "training skips them (on_bad_sample: skip)"
    if count.policy == "error":
        return "training stops (on_bad_sample: error)"
    if count.num_skipped == count.num_sampled:
        return "training stops: none is left"
    return f"training stops: more than data.max_bad_fraction={max_bad_fraction:g} allows"


def _show(measured: MeasuredSet, plan: Plan, console: Console) -> None:
    table = Table(
        "source", "rows", "used", "bad", "repeat", "tokens", "tiles", "rows %", "tokens %", box=None
    )
    rows = [(count.num_sampled - count.num_skipped) * count.repeat for count in measured.counts]
    tokens = [count.num_tokens * count.repeat for count in measured.counts]
    for count, own_rows, own_tokens in zip(measured.counts, rows, tokens, strict=True):
        table.add_row(
            count.name,
            f"{count.num_rows:,}",
            f"{count.num_sampled:,}",
            f"{count.num_skipped:,}",
            f"{count.repeat:g}",
            f"{count.num_tokens:,}",
            f"{count.num_tiles:,}",
            f"{100 * own_rows / max(sum(rows), 1):.1f}",
            f"{100 * own_tokens / max(sum(tokens), 1):.1f}",
        )
    console.print(table)
    shares: dict[str, float] = {}
    for count in measured.counts:
        for name, number in count.modalities.items():
            shares[name] = shares.get(name, 0.0) + number * count.repeat
    total = max(sum(shares.values()), 1)
    console.print(
        "rows by modality: "
        + ", ".join(f"{name} {share / total:.1%}" for name, share in shares.items())
    )
    for count in measured.counts:
        for line in source_notes(count.name, count.num_rows, count.num_filtered, count.empty_files):
            console.print(line, style="yellow", markup=False)
        if count.unread_keys:
            keys = ", ".join(count.unread_keys)
            console.print(f"not read in {count.name}: {keys}", markup=False)
        if count.left_out_keys:
            keys = ", ".join(count.left_out_keys)
            console.print(f"left out of {count.name} by `not_read`: {keys}", markup=False)
    packs = plural(plan.num_used_packs, "pack")
    console.print(
        f"an epoch: {plan.packs.num_rows:,} rows in {packs} of {plan.budget.max_tokens:,} tokens "
        f"and {plan.budget.max_tiles:,} tiles; fill {plan.token_fill:.1%} of tokens, "
        f"{plan.tile_fill:.1%} of tiles"
    )
