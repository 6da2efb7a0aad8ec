"""`smolvlm serve`: a run behind the interface that OpenAI's clients speak, by `transformers serve`.

In: a run's folder. Out: this process becomes the server (`exec`), whose libraries then find the
hub's settings as they are given here. Nothing is asked of the hub.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.interruption import interruptible
from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.quiet import hide_progress_bars
from smolvlm.terminal import say

_SERVER = "from smolvlm.cli.serve import become_server; become_server()"
_NEEDED = ("fastapi", "uvicorn", "openai")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    checkpoint: Annotated[
        Path, typer.Argument(help="A run's output folder, one of its checkpoints, an export.")
    ],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's own reach it.")
    ] = "127.0.0.1",
    device: Annotated[
        str, typer.Option(help="cpu, cuda:0, ...; a GPU by default where there is one.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, ...; auto is what the weights are saved in.")
    ] = "auto",
) -> None:
    """Serve a run to clients of OpenAI's interface, by `transformers serve`."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        what = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        raise ConfigError(what, where="smolvlm serve", fix='pip install "smolvlm[serve]"')
    hide_progress_bars()
    from smolvlm.runs.serving import served_folder

    folder = served_folder(checkpoint)
    if host not in _LOOPBACK:
        say(
            f"note: everybody who reaches {host}:{port} may ask, and the server opens what a "
            "question names, files of this machine too"
        )
    say(
        f"base_url http://{host}:{port}/v1\nmodel    {folder}\n"
        "Ctrl-C ends; docs/using.md has a client of a few lines"
    )
    hub = cache_dir() / "hub"
    hub.mkdir(parents=True, exist_ok=True)  # without its folder /v1/models answers 500
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "HF_HUB_DISABLE_TELEMETRY": "1"}
    arguments = ["serve", str(folder), "--host", host, "--port", str(port)]
    arguments += ["--device", device, "--dtype", dtype]
    os.execv(sys.executable, [sys.executable, "-c", _SERVER, str(folder), device, *arguments])


def become_server() -> None:
    """Serve as the process's arguments say: folder, device, what `transformers serve` is given."""
    from smolvlm.runs.openai_server import run_server

    folder, device, *arguments = sys.argv[1:]
    interruptible(lambda: run_server(arguments, folder, device=device))
