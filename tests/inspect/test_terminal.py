"""A terminal shows samples readably with colour, without it, and in ASCII."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from smolvlm.inspect.records import InspectedSample, PackFill, PackSummary
from smolvlm.inspect.terminal import print_samples
from smolvlm.records import Example

SUMMARY = PackSummary(
    packs=tuple(
        PackFill(num_tokens=3000, budget_tokens=4000, num_tiles=32, budget_tiles=64)
        for _ in range(14)
    )
)


@pytest.fixture
def sample(tree: Example, inspect: Callable[[Example], InspectedSample]) -> InspectedSample:
    return inspect(tree)


def printed(
    sample: InspectedSample,
    *,
    encoding: str = "utf-8",
    summary: PackSummary = SUMMARY,
    **options: object,
) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=100, **options)  # pyright: ignore[reportArgumentType]
    print_samples(console, [sample], summary=summary)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)  # pyright: ignore[reportAttributeAccessIssue]


def test_without_colour_what_is_learned_stands_in_brackets(sample: InspectedSample) -> None:
    text = printed(sample, color_system=None)
    assert "Assistant:⟦ Coffee.<end_of_utterance>⟧↵" in text
    assert text.count("⟦") == 3  # the legend's and two answers
    assert "\x1b" not in text


def test_with_colour_it_is_bold_and_underlined(sample: InspectedSample) -> None:
    text = printed(sample, color_system="standard", force_terminal=True)
    assert "\x1b[1;4;32m Coffee\x1b[0m" in text
    assert "⟦" not in text


def test_a_terminal_asked_for_no_colour_gets_brackets(sample: InspectedSample) -> None:
    text = printed(sample, color_system="standard", force_terminal=True, no_color=True)
    assert "⟦ Coffee.<end_of_utterance>⟧" in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_in_ascii_nothing_else_is_written(sample: InspectedSample) -> None:
    text = printed(sample, encoding="ascii", color_system=None)
    assert "Assistant:[[ Coffee.<end_of_utterance>]]\\n" in text


def test_the_tree_shows_its_trunk_and_branches(sample: InspectedSample) -> None:
    lines = printed(sample, color_system=None).splitlines()
    assert sample.trunk is not None
    assert any(line.startswith("rows.jsonl:1 and 1 more  ") for line in lines)
    assert f"trunk  {sample.trunk.end} tokens" in [line.rstrip() for line in lines]
    assert [line[:4] for line in lines if "rows.jsonl:" in line and "more" not in line] == [
        "├── ",
        "└── ",
    ]


def test_image_tokens_are_folded(sample: InspectedSample) -> None:
    text = " ".join(printed(sample, color_system=None).split())
    assert text.count("4 x <image>") == 13
    assert "<image><image>" not in text


def test_markup_and_escapes_of_a_row_stay_text(sample: InspectedSample) -> None:
    text = printed(sample, color_system="standard", force_terminal=True)
    plain = printed(sample, color_system=None)
    assert "[bold]this" in plain
    assert "\\x1b[31m" in plain
    assert "\x1b[31m" not in text


def test_the_footer_says_the_fill_and_the_learned_share(sample: InspectedSample) -> None:
    text = printed(sample, color_system=None)
    share = 100 * sample.num_learned / sample.num_tokens
    assert (
        f"1 sample, {sample.num_tokens} tokens, of which {sample.num_learned} learned ({share:.1f} "
        "%)" in text
    )
    assert "14 packs: 75.0 % of the token budget filled, 50.0 % of the tile budget" in text
    assert "and 2 more packs" in text


def test_where_a_part_is_shown_it_says_of_how_many(sample: InspectedSample) -> None:
    some = printed(sample, summary=PackSummary(packs=(), num_samples=12))
    assert "1 of 12 samples (--rows shows others), " in " ".join(some.split())
    every = printed(sample, summary=PackSummary(packs=(), num_samples=1))
    assert "1 sample, " in every
