"""`smolvlm build`: a model out of parts, what it would cost, and checkpoints with more tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.table import Table

from smolvlm.build.build import write_build
from smolvlm.build.build_plan import BuildPlan, BuildRecipe, plan_build
from smolvlm.build.cost_card import CostCard, cost_card, wish_list_plans
from smolvlm.build.tower_timing import TileTime, measure_tiles
from smolvlm.build.upgrade_tags import add_tokens, upgrade_tags
from smolvlm.errors import ConfigError
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say, say_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def run_build(
    recipe: BuildRecipe, *, out: Path | None, dtype: str, rounds: int, as_json: bool
) -> None:
    """Print the card of a recipe, and build it.

    Args:
        out: folder to write, new or empty; None prints the card alone.
        dtype: what weights are saved in, a key of `DTYPES`.
        rounds: how often a tile is timed on this machine; 0 is not at all.
        as_json: print the card as an object on standard output too.

    Raises:
        ConfigError: a part cannot be used, sizes do not fit each other, or there is something in
            the way.
    """
    plan = plan_build(recipe)
    name = f"{recipe.vision} with {recipe.language}"
    card = cost_card(plan, name=name)
    _print_cards([card], _measured({name: plan}, rounds), as_json=as_json)
    for part in (plan.vision, plan.language):
        say(f"{part.where}: {part.kind}")
    for note in (*plan.notes, *_context_notes(plan, card)):
        say(f"note: {note}")
    if out is None:
        return
    write_build(plan, out, dtype=DTYPES[dtype])
    size_mb = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    summary = (
        "the connector starts at random, so train it first (train.connector_lr, everything else 0)"
    )
    say(f"{out}: {len(list(out.iterdir()))} files, {size_mb:,.1f} MB; {summary}")


def run_cards(language: str, *, rounds: int, as_json: bool) -> None:
    """Print the cards of the towers proposed for a next model.

    Args:
        language: what they are joined with.
        rounds: how often a tile is timed on this machine; 0 is not at all.
        as_json: print an object a tower on standard output too.
    """
    plans = dict(wish_list_plans(language))
    cards = [cost_card(plan, name=name) for name, plan in plans.items()]
    _print_cards(cards, _measured(plans, rounds), as_json=as_json)
    say(f"language model: {language}; a square picture, one forward pass")


def run_more_tokens(base: str, tokens: Sequence[str] | None, *, out: Path) -> None:
    """Write a checkpoint with new tokens, or the tags of cut pictures; say what must train.

    Raises:
        ConfigError: the checkpoint cannot be used or has them, or there is something in the way.
    """
    report = add_tokens(base, out, list(tokens)) if tokens else upgrade_tags(base, out)
    say(report)


def refuse_without_out(out: Path | None, *, is_dry_run: bool) -> None:
    """Raise ConfigError where nobody said whether something is to be written."""
    if (out is None) != is_dry_run:
        what = "--out is missing" if out is None else "--dry-run writes nothing"
        raise ConfigError(what, where="smolvlm build", fix="give either --out FOLDER or --dry-run")


def _context_notes(plan: BuildPlan, card: CostCard) -> list[str]:
    longest, context = (
        card.pictures[-1].tokens,
        plan.language.text_config["max_position_embeddings"],
    )
    if longest < context:
        return []
    problem = f"a split picture is {longest:,} tokens, the language model's context {context:,}"
    return [f"{problem}: give a smaller --longest-edge-px or a larger --scale-factor"]


def _measured(plans: Mapping[str, BuildPlan], rounds: int) -> dict[str, TileTime]:
    """Time each tower once, however many plans have it."""
    if not rounds:
        return {}
    owner = {plan.dimensions: name for name, plan in reversed(list(plans.items()))}
    times = measure_tiles(
        {owner[plan.dimensions]: plan.config.vision_config for plan in plans.values()},
        rounds=rounds,
    )
    return {name: times[owner[plan.dimensions]] for name, plan in plans.items()}


def _print_cards(cards: list[CostCard], times: Mapping[str, TileTime], *, as_json: bool) -> None:
    table = Table(box=None)
    table.add_column("")
    for title in ("tower", "connector", "language", "all, parameters"):
        table.add_column(title, justify="right")
    pictures = Table(box=None)
    pictures.add_column("")
    columns = ["picture", "tiles", "tokens", "tower, GFLOPs", "language, GFLOPs"]
    for title in [*columns, *(["CPU ms here", "ratio"] if times else [])]:
        pictures.add_column(title, justify="right")
    for card in cards:
        counts = (
            card.tower_parameters,
            card.connector_parameters,
            card.language_parameters,
            card.parameters,
        )
        table.add_row(card.name, *(f"{count:,}" for count in counts))
        for cost in card.pictures:
            cells = [cost.name, f"{cost.tiles}", f"{cost.tokens:,}"]
            cells += [f"{cost.tower_flops / 1e9:,.0f}", f"{cost.language_flops / 1e9:,.0f}"]
            if times:
                tile_time = times[card.name]
                cells += [
                    f"{tile_time.tile_ms * cost.tiles:,.0f}",
                    f"{tile_time.ratio * cost.tiles:.2f}",
                ]
            pictures.add_row(card.name, *cells)
        if as_json:
            timed = (
                {"tile_ms": times[card.name].tile_ms, "ratio": times[card.name].ratio}
                if times
                else {}
            )
            say_json({**asdict(card), "parameters": card.parameters, **timed})
    console = terminal_console()
    console.print(table)
    console.print(pictures)
