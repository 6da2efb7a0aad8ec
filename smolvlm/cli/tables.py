"""Tables on a terminal of any width: columns side by side, or a block a row where they do not fit.

In: headings and rows of text. Out: lines of a console. No word is cut that fits into a line by
itself.
"""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_PADDING = 2
"""Columns of the terminal between two of the table's."""


def print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_names: int = 1
) -> None:
    """Write a table; stacked, a line a cell, where the columns' longest words need more room.

    Args:
        console: where to.
        columns: headings.
        rows: cells, as many as headings each; nothing in them is markup.
        num_names: how many columns from the left name a row; stacked, they are its heading.
    """
    cells = [columns, *rows]
    widest = [max(cell_len(row[number]) for row in cells) for number in range(len(columns))]
    longest = [max(_longest_word(row[number]) for row in cells) for number in range(len(columns))]
    room = console.width - _PADDING * len(columns)
    if sum(longest) > room:
        _print_stacked(console, columns, rows, num_names=num_names)
        return
    table = Table(box=None)
    for heading, width in zip(columns, _widths(longest, widest, room), strict=True):
        table.add_column(Text(heading), width=width)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _longest_word(text: str) -> int:
    return max(map(cell_len, text.split()), default=0)


def _widths(longest: Sequence[int], widest: Sequence[int], room: int) -> list[int]:
    """Return columns' widths: all that they want, or their longest word and a part of the rest."""
    widths = list(longest)
    while sum(widths) < room:
        wanting = [number for number, width in enumerate(widths) if width < widest[number]]
        if not wanting:
            break
        widths[min(wanting, key=lambda number: widths[number] / widest[number])] += 1
    return widths


def _print_stacked(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_names: int
) -> None:
    for row in rows:
        console.print(Text(" ".join(row[:num_names]), style="bold"))
        for heading, cell in zip(columns[num_names:], row[num_names:], strict=True):
            if cell:
                console.print(Padding(Text(f"{heading}: {cell}"), (0, 0, 0, 2), expand=False))
