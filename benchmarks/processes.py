"""How worker processes start: forked from a server that has imported the libraries once.

Importing torch, transformers and TRL takes longer than a tiny benchmark runs; the server does it
once for all workers. The parent imports none of them and stays small. No step is computed in the
server, so it has no threads to lose.
"""

import multiprocessing
import os
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.job import Job

GO, STOP = "go", "stop"
"""What the parent says to a worker."""
_PRELOAD = [
    "benchmarks.worker",
    "benchmarks.ours",
    "benchmarks.plain_trainer",
    "benchmarks.trl_trainer",
    "benchmarks.preferences",
]


@cache
def process_context() -> Any:
    """Return the multiprocessing context of all workers."""
    os.environ.setdefault(
        "PYTORCH_NVML_BASED_CUDA_CHECK", "1"
    )  # asking for a GPU must not open it before the fork
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def start_worker(job: Job, connection: Connection, *, compares_rows: bool) -> None:
    """Run a worker; here so that the parent can name it without importing the libraries."""
    from benchmarks.worker import run_worker

    run_worker(job, connection, compares_rows=compares_rows)


def write_model_apart(
    folder: Path,
    *,
    is_tiny: bool,
    layers: tuple[int, int] | None = None,
    image_splitting: bool = False,
) -> None:
    """Write the checkpoint in a process of its own, whose memory is then free again; arguments as
    of `benchmarks.model_files.write_model`.

    Raises:
        RuntimeError: the process failed; it has written why.
    """
    process = process_context().Process(
        target=_write_model,
        args=(folder,),
        kwargs={"is_tiny": is_tiny, "layers": layers, "image_splitting": image_splitting},
    )
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the checkpoint could not be written (status {process.exitcode})")


def _write_model(folder: Path, **kwargs: Any) -> None:
    from benchmarks.model_files import write_model

    write_model(folder, **kwargs)
