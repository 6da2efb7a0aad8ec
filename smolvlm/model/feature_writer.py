"""Features on their way from the device to the vision cache, behind the step.

In: keys and features, on any device. Out: commits, in order, by one thread. From a GPU the features
are copied into page-locked memory without waiting; the thread waits for the copy in the step's
place. What is not committed yet is read from here, so a process always sees what it wrote. A
process killed at any moment loses what is pending and nothing else. Before a fork all pending
features are committed: a child must not inherit a transaction that another thread of its parent had
open.
"""

import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MAX_PENDING_BYTES = 512 * 10**6
"""What may wait to be committed; beyond it the step waits for the disk."""

Commit = Callable[[Sequence[bytes], Tensor], None]
"""Writes the features of some keys, on the CPU, together."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Features that were handed over together."""

    places: Mapping[bytes, int]
    """Key -> its place in `features`, of keys given twice the last."""
    features: Tensor
    copied: torch.cuda.Event | None
    """Done once `features` are there."""

    def wait(self) -> Tensor:
        if self.copied is not None:
            self.copied.synchronize()
        return self.features


class FeatureWriter:
    """One a cache file and process."""

    def __init__(self, commit: Commit, *, max_pending_bytes: int = MAX_PENDING_BYTES) -> None:
        self._commit = commit
        self._max_pending_bytes = max_pending_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vision-cache")
        self._pending: deque[tuple[_Batch, Future[None]]] = deque()
        self._process = os.getpid()
        _WRITERS.add(self)

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made here, and not inherited over a fork."""
        return self._process == os.getpid()

    def write(self, keys: Sequence[bytes], features: Float[Tensor, "tile rows width"]) -> None:
        """Take features over; they must not be changed afterwards.

        Raises:
            lmdb.Error: an earlier commit failed.
        """
        batch, kept = _on_its_way(keys, features), tuple(keys)
        self._settle(room_for=batch.features.nbytes)
        future = self._thread.submit(lambda: self._commit(kept, batch.wait()))
        self._pending.append((batch, future))

    def pending(self, key: bytes) -> Tensor | None:
        """Return a copy of features that are not committed yet, None where there are none."""
        for batch, _ in reversed(self._pending):
            if (place := batch.places.get(key)) is not None:
                return batch.wait()[place].clone()
        return None

    def flush(self) -> None:
        """Return once everything is committed.

        Raises:
            lmdb.Error: a commit failed.
        """
        self._settle(room_for=self._max_pending_bytes)

    def wait(self) -> None:
        """Return once nothing is being committed, whatever came of it."""
        for _, future in tuple(self._pending):
            future.exception()

    def _settle(self, *, room_for: int) -> None:
        """Forget what is committed, and wait until there is room."""
        while self._pending:
            future = self._pending[0][1]
            if not future.done() and self._pending_bytes() + room_for <= self._max_pending_bytes:
                return
            try:
                future.result()
            finally:
                self._pending.popleft()

    def _pending_bytes(self) -> int:
        return sum(batch.features.nbytes for batch, _ in self._pending)


_WRITERS: weakref.WeakSet[FeatureWriter] = weakref.WeakSet()


def _before_fork() -> None:
    for writer in tuple(_WRITERS):
        if writer.is_of_this_process:
            writer.wait()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_before_fork)


def _on_its_way(keys: Sequence[bytes], features: Tensor) -> _Batch:
    """Begin to copy features to the CPU."""
    places = {key: place for place, key in enumerate(keys)}
    if features.device.type != "cuda":
        return _Batch(places, features.detach().cpu().contiguous(), None)
    host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
    host.copy_(features.detach(), non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(features.device))
    return _Batch(places, host, copied)
