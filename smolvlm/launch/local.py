"""The ranks of a run on this machine: started by torch's launcher, ended together, begun again.

In: the run's file and settings, and how many ranks. Out: an exit status. torch's agent starts the
ranks, and ends the others once one has ended badly. A rank that was killed, or that stood still
(`train.step_timeout_s`), is a mishap: all begin again, from the newest whole checkpoint, so many
times. One that ended with a status of its own said why: it would say it again.

Each start has a rendezvous and a store of its own: one that keeps the store of the dead attempt
waits for addresses that nobody answers (pytorch issue 135712).
"""

import logging
import os
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from signal import Signals
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from smolvlm.parent_process import Parent
from smolvlm.terminal import say
from smolvlm.train.ranks.step_watch import STALLED

LOOPBACK = "127.0.0.1"
ASKED_RANKS = "SMOLVLM_RANKS"
"""Environment variable of a rank: how many the launcher was asked for."""
_SIGNAL_STATUS = 128
_SHUTDOWN_S = 10
"""For ranks that are told to end: one that waits for a dead one does not hear it."""
_TIMEOUT: dict[str, Any] = (
    {"shutdown_timeout": _SHUTDOWN_S}
    if "shutdown_timeout" in signature(LaunchConfig).parameters  # older releases wait for 30 s
    else {}
)
_LOOPBACK_INTERFACE = Path("/sys/class/net/lo")


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLaunch:
    """What is started on one machine."""

    run_file: Path
    overrides: Sequence[str]
    """`section.key=value`."""
    num_ranks: int
    max_restarts: int = 3
    """How often all ranks begin again after one was killed or stood still."""

    @property
    def command(self) -> list[str]:
        """The command of a rank; without a GPU it trains on the CPU."""
        overrides = [*self.overrides]
        names = {override.partition("=")[0] for override in overrides}
        if not torch.cuda.is_available() and "train.use_cpu" not in names:
            overrides.append("train.use_cpu=true")
        command = [sys.executable, "-m", "smolvlm", "train", str(self.run_file), *overrides]
        return Parent.here().command(command)


def launch(settings: LocalLaunch) -> int:
    """Run all ranks to their end, and return the exit status of the command.

    Args:
        settings: what is started; the run file was read before.
    """
    _set_environment(settings.num_ranks)
    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed.elastic"):  # what it would say is said here
            logging.getLogger(name).setLevel(logging.CRITICAL)
    for restart in range(settings.max_restarts + 1):
        failure = _attempt(settings)
        if failure is None:
            return 0
        is_mishap = failure.exitcode < 0 or failure.exitcode == STALLED
        if not is_mishap or restart == settings.max_restarts:
            say(f"error: {_words(failure)}; the other ranks were ended")
            return failure.exitcode if failure.exitcode > 0 else _SIGNAL_STATUS - failure.exitcode
        begins = f"all {settings.num_ranks} ranks begin again"
        say(f"note: {_words(failure)}; {begins} ({restart + 1} of {settings.max_restarts})")
    return 0


def _attempt(settings: LocalLaunch) -> ProcessFailure | None:
    """Run all ranks once, and return the first that failed."""
    program, *arguments = settings.command
    with TemporaryDirectory(prefix="smolvlm-launch-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=settings.num_ranks,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{LOOPBACK}:0",
            local_addr=LOOPBACK,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **_TIMEOUT,
        )
        run: Any = elastic_launch(config, entrypoint=program)
        try:
            run(*arguments)
        except ChildFailedError as error:
            _, failure = error.get_first_failure()
            return failure
    return None


def _set_environment(num_ranks: int) -> None:
    """Tell the ranks how many there are to be, and share the cores of a CPU among them."""
    os.environ[ASKED_RANKS] = str(num_ranks)
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if not torch.cuda.is_available():
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_ranks)))
        if _LOOPBACK_INTERFACE.exists():  # a host's own name need not lead to it
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def _words(failure: ProcessFailure) -> str:
    """Return how a rank ended."""
    rank, status = f"rank {failure.local_rank}", failure.exitcode
    if status < 0:
        return f"{rank} was killed by {Signals(-status).name}"
    if status == STALLED:
        return f"{rank} stood still"
    return f"{rank} ended with status {status}"
