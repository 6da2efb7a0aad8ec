"""What each loader worker is reading, noted where it outlives the worker, and a worker's death told
by it.

A worker that is killed (memory ran out, a decoder crashed) can say nothing more. So it writes the
number of the pack and of the sample before it begins with them, a few bytes in shared memory, and
the trainer's process reads them there. torch tells of the death by a `RuntimeError`, from which the
process and the signal are read.
"""

import os
import re
import time
from collections.abc import Sequence

import torch

from smolvlm.datasets.dataset import PackDataset
from smolvlm.errors import SampleError
from smolvlm.media.decode_time import FIX, WORKER_STATUS

_DEATH = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) ")
_SIGNAL = re.compile(r"is killed by signal: ([^.]+)\.")
_EXIT_CODE = re.compile(r"exit code (\d+)")
_NOTHING = -1
_AT_MOST_ROWS = 8
_SIGNAL_S = 5.0
"""A busy machine may deliver a worker's signal this much later than its broken connection."""
_SENT_TO_ALL = ("Hangup", "Interrupt", "Terminated")
"""Signals by which schedulers and terminals end all processes of a job."""


class WorkerNotes:
    """A line a worker: process, pack, sample of the pack."""

    def __init__(self, num_workers: int) -> None:
        self._lines = torch.full((num_workers, 3), _NOTHING, dtype=torch.int64).share_memory_()

    def begin(self, worker: int, pack: int, sample: int) -> None:
        """Note what this worker reads from now on."""
        self._lines[worker, 2] = _NOTHING
        self._lines[worker, 1] = pack
        self._lines[worker, 2] = sample
        self._lines[worker, 0] = os.getpid()

    def end(self, worker: int) -> None:
        """Note that the pack is read."""
        self._lines[worker, 2] = _NOTHING

    def of(self, process: int) -> tuple[int, int | None] | None:
        """Return a process's (pack, sample), or None before its first.

        The sample is None once all are read."""
        for line in self._lines.tolist():
            if line[0] == process:
                return line[1], None if line[2] == _NOTHING else line[2]
        return None


def worker_death(
    error: BaseException, notes: WorkerNotes, packs: PackDataset
) -> SampleError | None:
    """Return a worker's death as an error that names what it read; None for another error.

    Args:
        error: as torch's loader raised it.
        notes: of the loader's workers.
        packs: whose numbers are in the notes.
    """
    match = _DEATH.search(str(error))
    if match is None:
        return None
    processes = [int(number) for number in match[1].split(",")]
    how, fix = _told(_whole_text(error))
    places = [place for process in processes if (place := notes.of(process)) is not None]
    reading = [packs.planned(pack).samples[sample] for pack, sample in places if sample is not None]
    who = f"the loader worker {', '.join(map(str, processes))} {how}"
    if reading:
        rows = [packs.where(row) for sample in reading for row in sample]
        return SampleError(
            f"{who} while it read this", kind="worker_died", where=listed(rows), fix=fix
        )
    rows = [
        packs.where(row)
        for pack, _ in places
        for sample in packs.planned(pack).samples
        for row in sample
    ]
    what = f"{who} after it had read this" if rows else f"{who} at once"
    return SampleError(what, kind="worker_died", where=listed(rows), fix=fix)


def with_late_signal(error: Exception) -> Exception:
    """Return the error that says how a worker died, where `error` came before it.

    torch raises it in a signal handler, wherever the program may be by then; so wait for it here.
    And for the signal that ended the worker, where it is one that is sent to whole jobs: this
    process is about to be told too.
    """
    text = _whole_text(error)
    signal = _SIGNAL.search(text)
    is_untold = not isinstance(error, RuntimeError) or bool(_DEATH.search(text))
    if signal[1] in _SENT_TO_ALL if signal else is_untold and not _EXIT_CODE.search(text):
        try:
            time.sleep(_SIGNAL_S)
        except RuntimeError as late:
            return error if signal else late
    return error


def listed(rows: Sequence[str], *, at_most: int = _AT_MOST_ROWS) -> str | None:
    """Return the names of rows in one line, None for no rows."""
    names = list(dict.fromkeys(rows))
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more if names else None


def _whole_text(error: BaseException | None) -> str:
    """Return an error's text and its causes': torch names signal and processes apart."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def _told(text: str) -> tuple[str, str]:
    """Return how a worker died, and what may help."""
    signal, code = _SIGNAL.search(text), _EXIT_CODE.search(text)
    if code is not None and int(code[1]) == WORKER_STATUS:
        return "ended itself: decoding took more than data.max_decode_s", FIX
    if signal is None:
        how = f"ended with status {code[1]}" if code else "ended"
        return (
            how,
            "look for its last words above; train.dataloader_num_workers: 0 reads without workers",
        )
    how = f"was killed by a signal ({signal[1]})"
    if signal[1] == "Killed":
        return (
            how,
            "most likely memory ran out: lower train.dataloader_num_workers or data.prefetch_mb",
        )
    if signal[1] == "Bus error":
        return (
            how,
            "shared memory ran out: lower data.prefetch_mb, or give more of it (in a container: "
            "--shm-size)",
        )
    return (
        how,
        "most likely a file crashes the library that decodes it: write it anew, or take its row "
        "out",
    )
