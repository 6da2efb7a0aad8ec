"""`smolvlm watch`: the report of a run, served to this machine's browser while it trains."""

from pathlib import Path
from typing import Annotated

import typer


def watch(
    run_dir: Annotated[Path, typer.Argument(help="A run's output folder.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")
    ] = 8321,
) -> None:
    """Serve a run's report on 127.0.0.1 until Ctrl-C; it refreshes itself while the run trains."""
    from smolvlm.errors import ConfigError
    from smolvlm.report.server import RunPage, RunServer
    from smolvlm.terminal import say

    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError("a file, not a folder", where=str(run_dir), fix="give a run's output_dir")
    with RunServer(RunPage(run_dir, say=say), port=port) as server:
        say(f"{run_dir} at {server.url}  (Ctrl-C ends it)")
        if not run_dir.exists():
            say("no such folder yet: the page waits until a run makes it")
        server.serve_forever()
