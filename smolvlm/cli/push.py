"""`smolvlm push`: a model with its card to the Hugging Face hub, or what would be sent."""

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.options import Json


def push(
    folder: Annotated[
        Path, typer.Argument(help="A run's output folder, or what `smolvlm export` wrote.")
    ],
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Only its owner sees the repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Upload a model",
    json: Json = False,
) -> None:
    """Send a model with its processor and its card to the Hugging Face hub."""
    from smolvlm.publish.push import planned_upload
    from smolvlm.publish.push import push as send
    from smolvlm.terminal import say, say_json

    upload = planned_upload(folder, repo_id, is_private=private)
    if json:
        for path in upload.files:
            say_json({"name": path.name, "bytes": path.stat().st_size})
    else:
        for path in upload.files:
            say(f"{path.stat().st_size:>15,}  {path.name}")
    visible_to = "private" if private else "public"
    say(f"{len(upload.files)} files, {upload.num_bytes / 1e6:,.1f} MB, to {repo_id} ({visible_to})")
    if dry_run:
        say("nothing was sent (--dry-run)")
        return
    say(send(upload, message=message))
