"""`smolvlm prepare`: measure a mixture once, on all cores, and say what it is made of.

The sizes of all rows are kept in the cache folder, where `smolvlm train` finds them; a preparation that was stopped
goes on where it was.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from smolvlm.build.configs import published_config
from smolvlm.build.processor import write_processor
from smolvlm.checkpoints.load import load_processor
from smolvlm.cli.evaluate import load_bare_config
from smolvlm.cli.models import with_model
from smolvlm.cli.progress import measuring_bar
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import DataConfig
from smolvlm.config.yaml_text import read_yaml
from smolvlm.datasets.builder import budget_of, kind_of_rows, one_pass, open_mixture, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import Engine, measure_sources
from smolvlm.datasets.packing.measured import MeasuredSet, RowKind, SourceCount, settle_rows
from smolvlm.datasets.packing.plan import Plan, plan_training
from smolvlm.pages.token_text import plural
from smolvlm.train.run_model import prompt_of_model

RELEASED = "HuggingFaceTB/SmolVLM-256M-Instruct"
"""Whose processor measures where none is named; its tokenizer and picture settings are built here, without the hub."""


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
    """Prepare a mixture, or the mixture of a run file.

    Args:
        target: a mixture's YAML, or a run file's.
        overrides: of the run file.
        model: whose processor measures a bare mixture; None is the released 256M checkpoint's.
        engine: what measures.
        num_workers: processes of the local engine; None is one a core.
        allow_outside_root: as `data.allow_outside_root`.
        as_json: print one object a source on standard output.
    """
    own = mixture_settings(target, overrides, model, allow_outside_root=allow_outside_root)
    data, prompt = own.data, own.prompt
    sources = open_mixture(data.mixture, data)
    with measuring_bar() as report:
        sizes = measure_sources(sources, prompt, engine=engine, num_workers=num_workers, keeps_all=True, report=report)
    measured = settle_rows(
        sources,
        sizes,
        budget=budget_of(data),
        on_bad_sample="skip",
        max_bad_fraction=1.0,
        overrules=True,
        kind=own.kind,
        context_tokens=prompt.context_tokens,
    )
    if as_json:
        for count in measured.counts:
            print(json.dumps(_as_object(count)))
    _show(measured, plan_training(measured.lengths, one_pass(data)), Console(file=sys.stderr))


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureSettings:
    """What a mixture is read with."""

    data: DataConfig
    prompt: PromptSettings
    kind: RowKind | None = None
    """Of its rows; None is any."""
    new_tokens: tuple[str, ...] = ()


def mixture_settings(
    target: Path, overrides: Sequence[str], model: str | None, *, allow_outside_root: bool
) -> MixtureSettings:
    """Return a run file's settings; or of a bare mixture, defaults and any kind of rows."""
    changes = [*overrides, *(["data.allow_outside_root=true"] if allow_outside_root else [])]
    content = read_yaml(target)
    if isinstance(content, dict) and {"model", "data"} <= content.keys():
        config = with_model(load_run_config(target, [*changes, *([f"model.path={model}"] if model else [])]))
        return MixtureSettings(
            data=config.data,
            prompt=prompt_of_model(config.model, config.data),
            kind=kind_of_rows(config.train),
            new_tokens=tuple(own.token for own in config.model.new_tokens),
        )
    config = load_bare_config(model or RELEASED, [f"data.mixture={target.absolute()}", *changes])
    if model is not None:
        return MixtureSettings(data=config.data, prompt=prompt_of_model(config.model, config.data))
    with TemporaryDirectory() as folder:
        published_config("256M", model_type="idefics3").save_pretrained(folder)
        write_processor(Path(folder), model_type="idefics3", tile_side_px=512, longest_edge_px=2048, tokens_per_tile=64)
        prompt = read_prompt(load_processor(folder), config.data, where=RELEASED)
        return MixtureSettings(data=config.data, prompt=prompt)


def _as_object(count: SourceCount) -> dict[str, object]:
    return {
        "name": count.name,
        "rows": count.num_rows,
        "used": count.num_sampled,
        "tokens": count.num_tokens,
        "tiles": count.num_tiles,
        "modality": max(count.modalities, key=lambda name: count.modalities[name], default=None),
        "modalities": dict(count.modalities),
        "repeat": count.repeat,
        "skipped": dict(count.skip_reasons),
    }


def _show(measured: MeasuredSet, plan: Plan, console: Console) -> None:
    table = Table("source", "rows", "used", "bad", "repeat", "tokens", "tiles", "rows %", "tokens %", box=None)
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
    console.print("rows by modality: " + ", ".join(f"{name} {own / total:.1%}" for name, own in shares.items()))
    for count in measured.counts:
        for reason, number in list(count.skip_reasons.items())[:5]:
            console.print(f"skipped in {count.name}: {number:,} x {reason}", style="yellow", markup=False)
    packs = plural(plan.num_used_packs, "pack")
    console.print(
        f"an epoch: {plan.packs.num_rows:,} rows in {packs} of {plan.budget.max_tokens:,} tokens "
        f"and {plan.budget.max_tiles:,} tiles; fill {plan.token_fill:.1%} of tokens, {plan.tile_fill:.1%} of tiles"
    )
