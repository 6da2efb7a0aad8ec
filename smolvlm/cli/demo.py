"""`smolvlm demo`: a page to ask a run about pictures and clips, its base beside it."""

import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm.errors import ConfigError
from smolvlm.quiet import hide_progress_bars
from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.runs.chat import Chat


def demo(
    checkpoint: Annotated[
        str, typer.Argument(help="A run's output folder, a checkpoint's folder or a hub id.")
    ],
    base: Annotated[
        bool | None,
        typer.Option(
            "--base/--no-base",
            help="The model it was trained from beside it; by default where that is known.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own reach it.")
    ] = "127.0.0.1",
    max_files: Annotated[int, typer.Option(min=1, help="Files with one question.")] = 8,
    max_file_mb: Annotated[int, typer.Option(min=1, help="Of one file, in MB.")] = 50,
    system: Annotated[str | None, typer.Option(help="A system turn at the beginning.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Where an answer that does not end is cut.")
    ] = 256,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; a GPU by default where there is one.")
    ] = None,
) -> None:
    """Open a page to ask a run about pictures and clips, the base it was trained from beside."""
    if find_spec("gradio") is None:
        what, fix = "gradio is not installed", 'pip install "smolvlm[demo]"'
        raise ConfigError(what, where="smolvlm demo", fix=fix)
    hide_progress_bars()
    from smolvlm.demo.guard import LOOPBACK
    from smolvlm.demo.page import served_page
    from smolvlm.demo.talk import Sides
    from smolvlm.demo.uploads import UploadLimits
    from smolvlm.runs.chat import open_chat
    from smolvlm.train.cpu_ways import computing_as_trained

    tuned = open_chat(checkpoint, device=device, system=system, max_new_tokens=max_new_tokens)
    limits = UploadLimits(max_files=max_files, max_file_mb=max_file_mb)
    sides = Sides(tuned=tuned, base=base_beside(tuned, checkpoint, is_wanted=base), limits=limits)
    folder = Path(checkpoint)  # whose place on this machine is nobody else's business
    title = folder.resolve().name if folder.is_dir() else checkpoint
    with (
        computing_as_trained(checkpoint, tuned.model.checkpoint.model.device),
        served_page(sides, title=title, host=host, port=port) as address,
    ):
        if host not in LOOPBACK:
            say(f"note: everybody who reaches {host}:{port} may ask, and upload files")
        say(f"{checkpoint} at {address}  (Ctrl-C ends it)")
        threading.Event().wait()


def base_beside(tuned: "Chat", checkpoint: str, *, is_wanted: bool | None) -> "Chat | None":
    """Return the base's conversation.

    Args:
        tuned: the checkpoint's.
        checkpoint: where it is.
        is_wanted: None is where the base is known.

    Raises:
        ConfigError: it is wanted and not known.
    """
    from smolvlm.runs.chat import chat_with_base

    if is_wanted is False:
        return None
    try:
        return chat_with_base(tuned, checkpoint)
    except ConfigError as error:
        if is_wanted:
            raise
        say(f"note: no base beside it ({error.what})")
        return None
