"""Inputs by the thousand, in processes that may die: what ends one is named, and the rest go on.

In: names of inputs. Out: what is wrong with which, and counts. Inputs are made and checked one
after another in a child process. The kernel ends it when one input takes too much CPU time
(SIGXCPU), so also within a library's loop, and refuses it memory above a limit; a wait without CPU
time ends by the clock. Whatever ended it, a new child takes the next input. Faults do not depend on
how busy the machine is, but for that clock, which is set far above. What children write lies in one
folder (`campaign_folder.py`), which the campaign deletes, or the next one.
"""

import os
import resource
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

from fuzz.campaign_folder import HOME, campaign_folder
from fuzz.checked import Checker
from fuzz.kinds import KINDS
from fuzz.names import Name

Plant = Callable[[], None]
_PRELOADED = "fuzz.kinds"
START_S = 900.0
"""A child may take so long to start, on a machine that is busy with other things."""
_LOOK_S = 0.5
"""Between two looks at whether the campaign was stopped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one input may take."""

    cpu_s: int = 20
    """A whole second more or less: a usual input takes 5 ms."""
    wall_s: float = 300.0
    """Of waiting for what comes of it."""
    memory_bytes: int = 4 << 30
    """Of address space, above what the child has when it starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One thing that is wrong with an input."""

    name: Name
    kind: str
    """`crash`, `hang`, `death`, or `swap` for all that rows lost, swapped or made up."""
    what: str


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of a campaign."""

    faults: list[Fault] = field(default_factory=list)
    num_inputs: Counter[str] = field(default_factory=Counter)
    """By kind of input."""
    num_accepted: Counter[str] = field(default_factory=Counter)
    """Rows, pictures or settings that were accepted, by kind of input."""
    cpu_s: float = 0.0

    def add(self, other: "Outcome") -> None:
        """Take another part of the campaign in."""
        self.faults += other.faults
        self.num_inputs += other.num_inputs
        self.num_accepted += other.num_accepted
        self.cpu_s += other.cpu_s


@dataclass(frozen=True, kw_only=True, slots=True)
class _Campaign:
    """What is the same for all inputs."""

    seed: int
    limits: Limits
    plant: Plant | None
    folder: Path
    """Where children write."""


class _StoppedError(Exception):
    """The campaign is to end; of its own threads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Done:
    """What a child says of an input."""

    faults: tuple[tuple[str, str], ...]
    num_accepted: int
    cpu_s: float


def run_campaign(
    names: Sequence[Name],
    *,
    seed: int,
    num_processes: int = 1,
    limits: Limits | None = None,
    plant: Plant | None = None,
) -> Outcome:
    """Make and check inputs, and return all that is wrong.

    Args:
        names: of the inputs.
        seed: of the campaign.
        num_processes: children at a time.
        limits: of one input.
        plant: called in each child before its first input; a test plants a fault with it.

    Raises:
        RuntimeError: a child died before its first input.
    """
    parts = [names[number::num_processes] for number in range(num_processes)]
    outcome, stop = Outcome(), Event()
    with campaign_folder() as folder, ThreadPoolExecutor(num_processes) as pool:
        campaign = _Campaign(seed=seed, limits=limits or Limits(), plant=plant, folder=folder)
        try:
            for part in pool.map(lambda part: _run_part(part, campaign, stop), parts):
                outcome.add(part)
        finally:
            stop.set()  # leaving the pool waits for its threads
    outcome.faults.sort(key=lambda fault: fault.name)
    return outcome


def _run_part(names: Sequence[Name], campaign: _Campaign, stop: Event) -> Outcome:
    outcome = Outcome()
    left = list(names)
    while left:
        for done in _from_child(left, campaign, stop):
            name = left.pop(0)
            outcome.num_inputs[name.kind] += 1
            outcome.num_accepted[name.kind] += done.num_accepted
            outcome.cpu_s += done.cpu_s
            outcome.faults += [Fault(name=name, kind=kind, what=what) for kind, what in done.faults]
    return outcome


def _from_child(names: Sequence[Name], campaign: _Campaign, stop: Event) -> Iterator[_Done]:
    """Yield what a child says of each input, and last what its death says of the one after.

    Raises:
        _StoppedError: the campaign is to end.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([_PRELOADED])
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(there, names, campaign))
    child.start()
    there.close()
    try:
        if _received(here, START_S, stop) is None:
            raise RuntimeError(f"a child died before its first input: {child.exitcode}")
        for _ in names:
            done = _received(here, campaign.limits.wall_s, stop)
            if done is None:
                yield _Done(faults=(_end_of(child, campaign.limits),), num_accepted=0, cpu_s=0.0)
                return
            yield done
    finally:
        child.kill()
        child.join()
        here.close()


def _received(connection: Connection, wait_s: float, stop: Event) -> _Done | None:
    """Return what a child sent, or None where it died, or sends nothing for too long."""
    end = time.monotonic() + wait_s
    try:
        while (left_s := end - time.monotonic()) > 0:
            if stop.is_set():
                raise _StoppedError
            if connection.poll(min(left_s, _LOOK_S)):
                return connection.recv()
    except EOFError:
        pass
    return None


def _end_of(child, limits: Limits) -> tuple[str, str]:
    child.join(timeout=5)
    if child.exitcode is None:
        return "hang", f"nothing for {limits.wall_s:g} s"
    if child.exitcode == -signal.SIGXCPU:
        return "hang", f"over {limits.cpu_s} s of CPU time"
    return "death", f"the process ended with {child.exitcode}"


def _work(connection: Connection, names: Sequence[Name], campaign: _Campaign) -> None:
    """Make and check inputs one after another, in a child."""
    _silence()
    warnings.simplefilter("ignore")
    tempfile.tempdir = str(campaign.folder)
    os.environ["SMOLVLM_HOME"] = str(campaign.folder / HOME)  # nothing is kept among a user's files
    checker = Checker()
    if campaign.plant is not None:
        campaign.plant()
    _limit_memory(campaign.limits)
    connection.send(_Done(faults=(), num_accepted=0, cpu_s=0.0))
    for name in names:
        connection.send(_done(name, campaign, checker))


def _silence() -> None:
    """Let libraries write their complaints of damaged files nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _limit_memory(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory_bytes, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _done(name: Name, campaign: _Campaign, checker: Checker) -> _Done:
    start = time.process_time()
    end = int(start) + 1 + campaign.limits.cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
    num_accepted = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            swaps, num_accepted = KINDS[name.kind](
                name.random(campaign.seed), Path(folder), checker
            )
            faults = tuple(("swap", what) for what in swaps)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of other languages' libraries too
            faults = (("crash", _crash(error)),)
    return _Done(faults=faults, num_accepted=num_accepted, cpu_s=time.process_time() - start)


def _crash(error: BaseException) -> str:
    """Return an exception with the last places that it passed."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__}: {str(error)[:200]} ({places})"
