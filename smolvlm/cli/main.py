"""The command line: arguments in, exit status out.

0 done, 1 a bad row, file or setting, or something that the system refused (`os_errors.py`; the
message says what, where, fix), 2 wrong usage, 3 a failed self-check, 130 or 143 stopped by Ctrl-C
or SIGTERM (`interruption.py`). A command's module is imported once its settings and mixtures are
known to be right (`early_checks.py`). Human output goes to standard error wherever `--json` writes
objects to standard output.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from smolvlm import __version__
from smolvlm.cli.build_command import build
from smolvlm.cli.chat_command import chat
from smolvlm.cli.demo import demo
from smolvlm.cli.early_checks import (
    check_evaluated,
    check_mixture_or_run,
    check_run_file,
)
from smolvlm.cli.export_command import export
from smolvlm.cli.interruption import interruptible
from smolvlm.cli.launch_command import launch
from smolvlm.cli.options import Command, Group, Json, RunFileCommand
from smolvlm.cli.os_errors import explained
from smolvlm.cli.output_files import check_output_file
from smolvlm.cli.plan_command import plan
from smolvlm.cli.push import push
from smolvlm.cli.report import report
from smolvlm.cli.serve import serve
from smolvlm.cli.settings import settings
from smolvlm.cli.watch import watch
from smolvlm.errors import SmolVLMError
from smolvlm.quiet import drop_import_warnings, hide_progress_bars
from smolvlm.terminal import say

app = typer.Typer(
    cls=Group,
    help="Fine-tune SmolVLM-family vision-language models: packed, exact and fast.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunFile = Annotated[Path, typer.Argument(help="The run file (YAML).")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings over the file's: section.key=value.")
]
MixtureOrRun = Annotated[Path, typer.Argument(help="A mixture (YAML), or a run file.")]
ProcessorOf = Annotated[
    str | None, typer.Option(help="Whose processor measures; the released 256M one's by default.")
]
Workers = Annotated[int | None, typer.Option(help="Processes; one a core by default.")]
OutsideRoot = Annotated[
    bool,
    typer.Option(
        "--allow-outside-root", help="Rows may name pictures outside their folder of pictures."
    ),
]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        say(f"smolvlm {__version__}", to=sys.stdout)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that stand before a command; `version` is answered by its callback."""


@app.command(cls=RunFileCommand)
def train(
    run_file: RunFile,
    overrides: Overrides = None,
    verify_data: Annotated[
        bool,
        typer.Option(
            "--verify-data", help="Read all rows and media first, and compare them with the run's."
        ),
    ] = False,
) -> None:
    """Train as a run file says; goes on by itself where an earlier run was stopped."""
    settings = [*(overrides or []), *(["train.verify_data=true"] if verify_data else [])]
    check_run_file(run_file, settings)
    hide_progress_bars()
    from smolvlm.cli.train import run_training

    run_training(run_file, settings)


@app.command("eval", cls=RunFileCommand)
def evaluate(
    target: Annotated[str, typer.Argument(help="A run folder, a checkpoint folder or a hub id.")],
    overrides: Overrides = None,
    mixture: Annotated[
        Path | None, typer.Option(help="Held-out mixture; the run's eval_mixture by default.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write every answer to this file (JSON lines) and a Parquet one beside it; one "
            "that was stopped goes on from there."
        ),
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Ask what the model was trained from too, and compare.")
    ] = False,
    json: Json = False,
) -> None:
    """Generate answers to a held-out set and score them."""
    check_output_file(predictions, "--predictions")
    check_evaluated(target, overrides or [], mixture=mixture)
    hide_progress_bars()
    from smolvlm.cli.evaluate import run_evaluation

    run_evaluation(
        target,
        overrides or [],
        mixture=mixture,
        predictions=predictions,
        base=base,
        as_json=json,
    )


@app.command(cls=RunFileCommand)
def inspect(
    run_file: RunFile,
    overrides: Overrides = None,
    rows: Annotated[
        str, typer.Option(help="Samples to show: start:end (a tree counts once).")
    ] = "0:4",
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page.")] = None,
    pixels: Annotated[
        Path | None,
        typer.Option(help="Write the samples' tiles, float32, to this safetensors file."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check packed = alone on these rows and this model.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what the model would see and learn, before anything is trained."""
    check_output_file(html, "--html")
    check_output_file(pixels, "--pixels")
    check_run_file(run_file, overrides or [])
    hide_progress_bars()
    from smolvlm.cli.inspect import run_inspection

    run_inspection(
        run_file, overrides or [], rows=rows, html=html, pixels=pixels, verify=verify, as_json=json
    )


@app.command(cls=RunFileCommand)
def prepare(
    mixture: MixtureOrRun,
    overrides: Overrides = None,
    model: ProcessorOf = None,
    engine: Annotated[
        str, typer.Option(help="local (all cores of this machine) or ray.")
    ] = "local",
    workers: Workers = None,
    allow_outside_root: OutsideRoot = False,
    json: Json = False,
) -> None:
    """Measure a mixture's rows once, keep their sizes, and show what it is made of."""
    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"--engine is local or ray, not {engine!r}")
    check_mixture_or_run(mixture, overrides or [], model=model)
    hide_progress_bars()
    from smolvlm.cli.prepare import run_preparation

    run_preparation(
        mixture,
        overrides or [],
        model=model,
        engine=engine,
        num_workers=workers,
        allow_outside_root=allow_outside_root,
        as_json=json,
    )


@app.command(cls=RunFileCommand)
def check(
    mixture: MixtureOrRun,
    overrides: Overrides = None,
    model: ProcessorOf = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Held-out mixture; the run's eval_mixture by default.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page, and its JSON twin beside it.")
    ] = None,
    workers: Workers = None,
    allow_outside_root: OutsideRoot = False,
    json: Json = False,
) -> None:
    """Read every row and decode every picture; name what is wrong. Exit status 1 where there are
    errors."""
    check_output_file(html, "--html")
    check_mixture_or_run(mixture, overrides or [], model=model, held_out=held_out)
    hide_progress_bars()
    from smolvlm.cli.check import run_check

    run_check(
        mixture,
        overrides or [],
        model=model,
        held_out=held_out,
        html=html,
        num_workers=workers,
        allow_outside_root=allow_outside_root,
        as_json=json,
    )


@app.command(cls=Command)
def quickstart(
    steps: Annotated[
        int | None, typer.Option(help="Stop after so many optimizer steps (a short check).")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the run.")] = Path("runs/quickstart"),
    check: Annotated[
        bool, typer.Option("--check", help="Fail unless the loss fell and the checkpoint reloads.")
    ] = False,
) -> None:
    """Train the embedded model on easy-VQA from nothing but the package index, and report."""
    hide_progress_bars()
    from smolvlm.cli.quickstart import run_quickstart

    run_quickstart(out, steps=steps, check=check)


app.command(cls=Command)(export)
app.command(cls=RunFileCommand)(launch)
app.command(cls=Command)(build)
app.command(cls=Command)(settings)
app.command(cls=Command)(chat)
app.command(cls=Command)(serve)
app.command(cls=Command)(demo)
app.command(cls=Command)(push)
app.command(cls=Command)(report)
app.command(cls=Command)(watch)
app.command(cls=RunFileCommand)(plan)


def main() -> None:
    """Run the command line."""
    drop_import_warnings()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        interruptible(app)
    except SmolVLMError as error:
        say(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        say(f"error: {explained(error)}")
        sys.exit(1)
