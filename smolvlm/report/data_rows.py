"""What a run learned from: the rows of a table, a source each, from what `run.json` says of it.

In: sources. Out: their counts in words, and each one's share of the rows and tokens of an epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from smolvlm.pages.token_text import percent
from smolvlm.report.starts import SourceRows


@dataclass(frozen=True, kw_only=True, slots=True)
class DataRow:
    """One source, as the page writes it."""

    name: str
    num_rows: str
    num_used: str
    repeat: str
    share_of_rows: str
    """Of an epoch."""
    share_of_tokens: str
    num_tokens: str
    """Of an epoch."""
    num_tiles: str


def data_rows(sources: Sequence[SourceRows]) -> tuple[DataRow, ...]:
    """Return a line for each source, in the mixture's order."""
    rows = [source.num_used * source.repeat for source in sources]
    tokens = [source.num_tokens * source.repeat for source in sources]
    return tuple(
        DataRow(
            name=source.name,
            num_rows=f"{source.num_rows:,}",
            num_used=f"{source.num_used:,}",
            repeat=f"{source.repeat:g}",
            share_of_rows=percent(num_rows / (sum(rows) or 1)),
            share_of_tokens=percent(num_tokens / (sum(tokens) or 1)),
            num_tokens=f"{num_tokens:,.0f}",
            num_tiles=f"{source.num_tiles * source.repeat:,.0f}",
        )
        for source, num_rows, num_tokens in zip(sources, rows, tokens, strict=True)
    )
