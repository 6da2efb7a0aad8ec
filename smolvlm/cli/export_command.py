"""The arguments of `smolvlm export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from smolvlm.cli.export import run_export

if TYPE_CHECKING:
    from smolvlm.publish.loading import ExportForm

FORMS = ("transformers", "gguf", "onnx", "browser")


def export(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's output folder, or one of its checkpoints.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(FORMS)}.")],
    merge: Annotated[
        bool,
        typer.Option("--merge", help="Of --to transformers: add an adapter to its base's weights."),
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Of --to gguf: f16 (the default), f32 or q8_0.")
    ] = None,
    no_proof: Annotated[
        bool,
        typer.Option("--no-proof", help="Do not run what was written, nor compare its answers."),
    ] = False,
) -> None:
    """Write a checkpoint as a folder for other programs, and prove that it answers the same.

    Exit status 3 where it does not.
    """
    if to not in FORMS:
        raise typer.BadParameter(f"--to is one of {', '.join(FORMS)}, not {to!r}")
    form = cast("ExportForm", to)
    run_export(checkpoint, to=form, out=out, merge=merge, dtype=dtype, proves=not no_proof)
