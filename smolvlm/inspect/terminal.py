"""Samples on a terminal: a block each, coloured by role, trees drawn as trees.

With colour, what is learned is bold and underlined; without, it stands in brackets. Nothing of a
row is read as markup or as an escape sequence.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text
from rich.tree import Tree

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.inspect.records import InspectedSample, PackSummary, SamplePart, TokenRun, run_label
from smolvlm.pages.token_text import NEWLINE, percent, plural
from smolvlm.terminal import visible

ROLE_STYLES = {
    TokenRole.TEMPLATE: "bright_black",
    TokenRole.SYSTEM: "magenta",
    TokenRole.USER: "blue",
    TokenRole.ASSISTANT: "green",
    TokenRole.IMAGE: "yellow",
}
LEARNED_STYLE = "bold underline"
BRACKETS = ("⟦", "⟧")
ASCII_BRACKETS = ("[[", "]]")
BAR_WIDTH = 24
MAX_PACKS_SHOWN = 12


def print_samples(
    console: Console, samples: Sequence[InspectedSample], *, summary: PackSummary
) -> None:
    """Write a block a sample, and the fill of the packs and the share of learned tokens."""
    has_colour = console.color_system is not None and not console.no_color
    is_ascii = console.options.ascii_only
    console.print(_legend(has_colour=has_colour, is_ascii=is_ascii))
    for sample in samples:
        console.print(sample_block(sample, has_colour=has_colour, is_ascii=is_ascii))
    console.print(footer(samples, summary, is_ascii=is_ascii))


def sample_block(
    sample: InspectedSample, *, has_colour: bool, is_ascii: bool = False
) -> RenderableType:
    """Return one sample: a heading, then its text; a tree's branches are indented."""

    def text(part: SamplePart) -> Text:
        return part_text(part, has_colour=has_colour, is_ascii=is_ascii)

    body: RenderableType
    if sample.trunk is None and len(sample.branches) == 1:
        body = Padding(text(sample.branches[0]), (0, 0, 0, 2))
    else:
        length = sample.trunk.end if sample.trunk else 0
        body = Tree(
            Group(
                Text(f"trunk  {plural(length, 'token')}", style="bold"), *_texts(sample.trunk, text)
            )
        )
        for branch in sample.branches:
            title = Text(
                f"{branch.where}  {plural(branch.end - branch.start, 'token')}", style="bold"
            )
            body.add(Group(title, text(branch)))
    return Group(
        Rule(_heading(sample), align="left", characters="-" if is_ascii else "─"), body, Text()
    )


def part_text(part: SamplePart, *, has_colour: bool, is_ascii: bool = False) -> Text:
    """Return a part's text, coloured by role, what is learned marked."""
    opening, closing = ASCII_BRACKETS if is_ascii else BRACKETS
    result = Text()
    for is_learned, runs in groupby(part.runs, key=lambda run: run.is_learned):
        is_bracketed = is_learned and not has_colour
        result.append(opening if is_bracketed else "")
        for run in runs:
            style = ROLE_STYLES[run.role] + (f" {LEARNED_STYLE}" if is_learned else "")
            result.append(_run_text(run, is_ascii=is_ascii), style)
        result.append(closing if is_bracketed else "")
    if result.plain.endswith("\n"):
        result.right_crop(1)
    return result


def footer(
    samples: Sequence[InspectedSample], summary: PackSummary, *, is_ascii: bool = False
) -> RenderableType:
    """Return what the samples and the packs add up to."""
    tokens = sum(sample.num_tokens for sample in samples)
    learned = sum(sample.num_learned for sample in samples)
    lines = [
        Rule(characters="-" if is_ascii else "─"),
        Text(
            f"{_shown(len(samples), summary)}, {plural(tokens, 'token')}, of which {learned:,} "
            f"learned ({percent(learned / max(tokens, 1))})"
        ),
    ]
    if summary.packs:
        lines.append(
            Text(
                f"{plural(len(summary.packs), 'pack')}: {percent(summary.token_fill)} of the token "
                "budget filled, "
                f"{percent(summary.tile_fill)} of the tile budget"
            )
        )
        lines += _pack_lines(summary, is_ascii=is_ascii)
    return Group(*lines)


def _shown(count: int, summary: PackSummary) -> str:
    """Return `3 samples`, or `3 of 12 samples` where more are in the epoch."""
    if summary.num_samples <= count:
        return plural(count, "sample")
    return f"{count:,} of {summary.num_samples:,} samples (--rows shows others)"


def _pack_lines(summary: PackSummary, *, is_ascii: bool) -> Iterator[Text]:
    full, empty = ("#", ".") if is_ascii else ("█", "░")
    for number, pack in enumerate(summary.packs[:MAX_PACKS_SHOWN], start=1):
        filled = round(BAR_WIDTH * min(pack.num_tokens / pack.budget_tokens, 1))
        yield Text(
            f"  pack {number:>3}  {full * filled}{empty * (BAR_WIDTH - filled)}  "
            f"{pack.num_tokens:>7,} / {pack.budget_tokens:,} tokens  {pack.num_tiles:>4} / "
            f"{pack.budget_tiles} tiles"
        )
    if (more := len(summary.packs) - MAX_PACKS_SHOWN) > 0:
        yield Text(f"  and {plural(more, 'more pack')}")


def _legend(*, has_colour: bool, is_ascii: bool) -> Text:
    legend = Text("colours: ") if has_colour else Text()
    if has_colour:
        for role, style in ROLE_STYLES.items():
            legend.append(role.name.lower(), style).append("  ")
        return legend.append("learned", LEARNED_STYLE)
    opening, closing = ASCII_BRACKETS if is_ascii else BRACKETS
    return legend.append(f"what is learned stands in {opening} {closing}")


def _heading(sample: InspectedSample) -> Text:
    others = len(sample.where) - 1
    counts = [
        plural(sample.num_tokens, "token"),
        plural(sample.num_tiles, "tile"),
        f"{sample.num_learned:,} learned",
    ]
    name = sample.where[0] + (f" and {others} more" if others else "")
    return Text(name, style="bold").append("  " + ", ".join(counts), style="not bold")


def _texts(trunk: SamplePart | None, text) -> list[Text]:
    return [text(trunk)] if trunk else []


def _run_text(run: TokenRun, *, is_ascii: bool) -> str:
    if run.tile is not None:
        return run_label(run)
    text = visible(run.text)
    return text.replace("\n", ("\\n" if is_ascii else NEWLINE) + "\n")
