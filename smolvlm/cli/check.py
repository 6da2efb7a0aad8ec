"""`smolvlm check`: the check. Reads every row, decodes every picture and clip, says what is
wrong; no model."""

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from smolvlm.check.check_rows import CheckResult
from smolvlm.check.findings import Finding, by_finding_cause
from smolvlm.check.page import write_check_page
from smolvlm.cli.progress import measuring_bar
from smolvlm.cli.source_notes import source_notes
from smolvlm.cli.train import to_stderr
from smolvlm.config.problems import more_like_it
from smolvlm.disk.atomic_files import write_text
from smolvlm.pages.token_text import plural
from smolvlm.runs.mixture import check_mixture, mixture_settings
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import json_text, say, say_json

FOUND_ERRORS = 1
SHOWN_OF_A_KIND = 3
"""Causes of each kind that the terminal's table names, each by its first row."""


def run_check(
    target: Path,
    overrides: Sequence[str],
    *,
    model: str | None,
    held_out: Path | None,
    html: Path | None,
    num_workers: int | None,
    allow_outside_root: bool,
    as_json: bool,
) -> None:
    """Check a mixture, or the mixtures of a run file; exit status 1 where there are errors.

    Args:
        target: a mixture's YAML, or a run file's.
        overrides: of the run file.
        model: whose processor measures a bare mixture; None is the released 256M checkpoint's.
        held_out: mixture to look for leaks into; a run file's `eval_mixture` by default.
        html: page to write; its JSON twin goes beside it.
        num_workers: processes; None is one a core.
        allow_outside_root: as `data.allow_outside_root`.
        as_json: print one object a finding on standard output.
    """
    settings = mixture_settings(
        target, overrides, model, allow_outside_root=allow_outside_root, say=to_stderr
    )
    with measuring_bar() as report:
        result = check_mixture(settings, held_out=held_out, num_workers=num_workers, report=report)
    objects = [_as_object(finding) for finding in result.findings]
    if as_json:
        for line in objects:
            say_json(line)
    _show(result, terminal_console())
    if html is not None:
        write_check_page(result, path=html, title=target.name)
        twin = json_text(objects, indent=1) + "\n"
        write_text(html.with_suffix(".json"), twin)
        say(f"page: {html}")
    if result.num_errors:
        raise typer.Exit(FOUND_ERRORS)


def _as_object(finding: Finding) -> dict[str, str]:
    return {
        "where": finding.where,
        "severity": finding.severity,
        "kind": finding.kind,
        "message": finding.message,
    }


def _show(result: CheckResult, console: Console) -> None:
    console.print(
        f"{plural(result.num_rows, 'row')}, {plural(result.num_pictures, 'picture')} and "
        f"{plural(result.num_clips, 'clip')} decoded: "
        f"{plural(result.num_errors, 'error')}, {plural(result.num_warnings, 'warning')}"
    )
    for remark in result.remarks:
        console.print(f"{remark.where}: {remark.message}", markup=False)
    for own in result.sources:
        for line in source_notes(own.name, own.num_rows, own.num_filtered, own.empty_files):
            console.print(line, style="yellow", markup=False)
    if not result.kinds():
        return
    table = Table("kind", "findings", "the first of them", box=None)
    for kind, count in result.kinds().most_common():
        table.add_row(kind, f"{count:,}", "\n".join(_lines_of(kind, result)))
    console.print(table, markup=False)
    console.print("every row by itself: --json, or --html PAGE", markup=False)


def _lines_of(kind: str, result: CheckResult) -> list[str]:
    """Return what the table says of a kind: a line a cause."""
    causes = by_finding_cause(
        finding
        for finding in result.findings
        if finding.kind == kind and finding.severity != "info"
    )
    lines = []
    for first, *others in causes[:SHOWN_OF_A_KIND]:
        lines.append(f"{first.where}: {first.message}{more_like_it(len(others), 'row')}")
    if len(causes) > SHOWN_OF_A_KIND:
        num_left = sum(map(len, causes[SHOWN_OF_A_KIND:]))
        lines.append(f"and {num_left:,} of other causes")
    return lines
