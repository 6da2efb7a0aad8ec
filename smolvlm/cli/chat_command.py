"""The options of `smolvlm chat`; what it does stands in `chat.py`."""

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.errors import ConfigError
from smolvlm.quiet import hide_progress_bars


def chat(
    checkpoint: Annotated[
        str, typer.Argument(help="A run's output folder, a checkpoint's folder or a hub id.")
    ],
    media: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, clips, folders of frames."),
    ] = None,
    question: Annotated[
        str | None, typer.Option(help="Answer this on standard output, and end.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Answer with the model it was trained from, too.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="A system turn at the beginning.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Where an answer that does not end is cut.")
    ] = 256,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU by default where there is one.")
    ] = None,
) -> None:
    """Talk to a checkpoint about pictures and clips; the base it was trained from beside it."""
    for path in media or []:
        if not path.exists():
            raise ConfigError("no such file", where=str(path), fix="check the path")
    hide_progress_bars()
    from smolvlm.cli.chat import run_chat

    run_chat(
        checkpoint,
        media or [],
        question=question,
        with_base=base,
        system=system,
        max_new_tokens=max_new_tokens,
        device=device,
    )
