"""A bar for the one thing that may take minutes before training: measuring millions of rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smolvlm.datasets.packing.length_cache import SMALL_ROWS, Report
from smolvlm.terminal import console as terminal_console


@contextmanager
def measuring_bar(also: Report | None = None) -> Iterator[Report]:
    """Yield what moves a bar on standard error; small mixtures, which take seconds, show none.

    Args:
        also: told the same.
    """
    columns = (
        TextColumn("measuring rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=terminal_console(), transient=True) as progress:
        task = progress.add_task("", total=None, visible=False)

        def report(num_done: int, num_rows: int) -> None:
            progress.update(task, completed=num_done, total=num_rows, visible=num_rows > SMALL_ROWS)
            if also is not None:
                also(num_done, num_rows)

        yield report
