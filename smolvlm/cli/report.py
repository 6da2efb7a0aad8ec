"""`smolvlm report`: a run's page written anew, or several runs side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm.cli.output_files import check_output_file
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.report.side_by_side import Comparison
    from smolvlm.report.worse import Score


def report(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Output folders of runs, one or several.")
    ],
    html: Annotated[
        Path | None,
        typer.Option(help="Write the page to this file; of one run, report.html in its folder."),
    ] = None,
) -> None:
    """Write a run's page anew from what it left behind, or lay several runs side by side."""
    check_output_file(html, "--html")
    if len(run_dirs) > 1:
        _report_side_by_side(run_dirs, html)
        return
    from smolvlm.disk.atomic_files import write_text
    from smolvlm.report.report import run_report, write_run_report

    if html is None:
        say(write_run_report(run_dirs[0]))
        return
    write_text(html, run_report(run_dirs[0]))
    say(html)


def _report_side_by_side(run_dirs: Sequence[Path], html: Path | None) -> None:
    """Print tables of what differs in runs and what came of it; write their page where asked."""
    from smolvlm.disk.atomic_files import write_text
    from smolvlm.report.side_by_side import compare_runs
    from smolvlm.report.side_page import side_page

    comparison = compare_runs(run_dirs)
    for note in comparison.notes:
        say(f"note: {note}")
    _show(comparison)
    if html is not None:
        write_text(html, side_page(comparison))
        say(html)


def _show(comparison: "Comparison") -> None:
    """Print the tables on standard error."""
    from smolvlm.cli.tables import print_table

    console = terminal_console()
    settings = [(row.name, *row.cells) for row in comparison.settings]
    has_before = any(row.before for row in comparison.scores)
    score_columns = ("source", "metric", *(["before"] if has_before else []))
    scores = [
        (
            row.source,
            row.metric,
            *([_cell(row.before)] if has_before else []),
            *map(_cell, row.scores),
        )
        for row in comparison.scores
    ]
    costs = [(row.name, *row.cells) for row in comparison.costs]
    for columns, rows, num_names in (
        (("setting",), settings, 1),
        (score_columns, scores, 2),
        (("cost",), costs, 1),
    ):
        if rows:
            print_table(console, (*columns, *comparison.names), rows, num_names=num_names)
            console.print()
    if not settings:
        say("no setting differs but the folders")


def _cell(score: "Score | None") -> str:
    """Return `0.4200 (0.3500 to 0.4900)`; empty without a score."""
    if score is None:
        return ""
    return f"{score.value:.4f}" + (f" ({score.interval})" if score.interval else "")
