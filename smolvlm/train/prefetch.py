"""Packs that loader workers make ahead of the step: never more bytes than allowed, and each under
its rows' names.

In: the packs of a run. Out: the same packs under the same numbers, for torch's loader to have made
by its workers.

torch bounds what lies ahead by number alone (`dataloader_prefetch_factor` packs a worker), whatever
it weighs. What every pack weighs is known from the plan, so a worker that is handed a number waits
here until that pack has room, together with all that lie between it and the step. How far the step
has come is one number in shared memory. Numbers are handed out in order, and the packs that the
step waits for have room whatever they weigh: nothing can lock up.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from types import TracebackType
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch.utils.data import Dataset, get_worker_info
from transformers import TrainingArguments

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.columns import EMPTY_PACK, PlannedPack, PlannedPacks
from smolvlm.datasets.packing.pack import BYTES_PER_TOKEN, Pack
from smolvlm.errors import ConfigError, SmolVLMError
from smolvlm.model.attention.flex import BLOCK_SIZE
from smolvlm.parent_process import Parent
from smolvlm.train.batch import without_worker_traceback
from smolvlm.train.worker_notes import WorkerNotes, listed, with_late_signal, worker_death

Batch = TypeVar("Batch")

ALWAYS_AHEAD = 2
"""Packs with room whatever they weigh: the loop has the next one read before it is given the one it
asked for."""
BYTES_PER_PAIR_OF_BLOCKS = 16
"""The block lists of `model.attention.flex`, which only packs for CUDA have: four numbers for each
pair."""
_ENDED = -1
_POLL_S = 0.005


def planned_bytes(packs: PlannedPacks, *, bytes_per_tile: int) -> Int64[np.ndarray, " pack"]:
    """Return each pack's memory at most; a picture that it shows twice counts twice.

    Args:
        packs: as planned.
        bytes_per_tile: of its pixels, or of its features where the vision cache may give those
            instead.
    """
    tokens = packs.num_tokens.astype(np.int64)
    blocks = tokens // BLOCK_SIZE + 2
    lists = blocks**2 * BYTES_PER_PAIR_OF_BLOCKS
    return tokens * BYTES_PER_TOKEN + lists + packs.num_tiles.astype(np.int64) * bytes_per_tile


class PrefetchedPacks(Dataset[Pack]):
    """A run's packs, made ahead by the workers of one rank."""

    def __init__(
        self,
        packs: PackDataset,
        *,
        bytes_per_tile: int,
        max_bytes: int,
        num_workers: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        """
        Args:
            packs: of all ranks; pack i goes to rank i % num_ranks.
            bytes_per_tile: see `planned_bytes`.
            max_bytes: of this rank's packs that are being made, or are made and not yet taken.
            num_workers: of this rank's loader.
            rank: this one.
            num_ranks: of the run.
        """
        self._packs = packs
        self._num_ranks = num_ranks
        weights = planned_bytes(packs.planned_packs, bytes_per_tile=bytes_per_tile)[rank::num_ranks]
        # Indexed by this rank's count of packs.
        self._begins = np.concatenate([np.zeros(1, np.int64), np.cumsum(weights)])
        self._max_bytes = max_bytes
        self._num_taken = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._notes = WorkerNotes(num_workers)
        self._parent = Parent.here()

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index: int) -> Pack:
        """Return a pack, once there is room for it.

        Raises:
            SampleError: as `PackDataset.build`.
            ConfigError: the machine has no shared memory left to hand it over in.
        """
        planned = self._packs.planned(index)
        worker = get_worker_info()
        if worker is None:
            with _NamingRows(self._packs, planned):
                return self._packs.build(planned)
        self._parent.end_with()
        began = time.perf_counter()
        self._wait_for_room(index // self._num_ranks)
        room_s = time.perf_counter() - began
        if int(self._num_taken[0]) == _ENDED:
            return self._packs.build(EMPTY_PACK)
        with _NamingRows(self._packs, planned):
            pack = self._packs.build(
                planned, begin_sample=lambda sample: self._notes.begin(worker.id, index, sample)
            )
            self._notes.end(worker.id)
            pack.times.room_s = room_s
            return _in_shared_memory(pack)

    def begin_at(self, num_taken: int) -> None:
        """Say how many packs this rank took before the run was stopped; called where it trains."""
        self._parent = Parent.here()
        self._num_taken[0] = num_taken

    def take(self, batch: Batch) -> Batch:
        """Pass on the next pack that the step takes: its room goes to a later one."""
        self._num_taken[0] += 1
        return batch

    @contextmanager
    def in_users_words(self) -> Iterator[None]:
        """Turn failures of workers into errors for users; at the end, stop making packs.

        Free the loader with the frames that used it: left to the garbage collector, torch's loader
        finds its queues gone before it could use them to send its workers home, and waits five
        seconds for each.

        Raises:
            SampleError, ConfigError: raised by a worker, or in place of a worker's death.
        """
        try:
            yield
        except SmolVLMError as error:
            clear_frames(error.__traceback__)
            raise without_worker_traceback(error) from None
        except (RuntimeError, OSError, EOFError) as error:
            death = worker_death(with_late_signal(error), self._notes, self._packs)
            if death is None:
                raise
            clear_frames(error.__traceback__)
            raise death from error
        finally:
            self._num_taken[0] = _ENDED

    def _wait_for_room(self, position: int) -> None:
        while not self._has_room(position):
            time.sleep(_POLL_S)

    def _has_room(self, position: int) -> bool:
        num_taken = int(self._num_taken[0])
        if num_taken == _ENDED or position < num_taken + ALWAYS_AHEAD:
            return True
        return bool(self._begins[position + 1] - self._begins[num_taken] <= self._max_bytes)


def prefetched_packs(
    packs: PackDataset, arguments: TrainingArguments, *, feature_bytes: int, max_bytes: int
) -> PrefetchedPacks:
    """Return a run's packs as this process's loader is to make them.

    Args:
        packs: of all ranks.
        arguments: the run's.
        feature_bytes: of a tile in the vision cache, 0 where there is none.
        max_bytes: of what is ahead.
    """
    return PrefetchedPacks(
        packs,
        bytes_per_tile=max(3 * packs.settings.pictures.tile_side_px**2, feature_bytes),
        max_bytes=max_bytes,
        num_workers=arguments.dataloader_num_workers,
        rank=arguments.process_index,
        num_ranks=arguments.world_size,
    )


class _NamingRows:
    """Adds to an error that is not for users, which pack it came from; its traceback stays."""

    def __init__(self, packs: PackDataset, planned: PlannedPack) -> None:
        self._packs = packs
        self._planned = planned

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None and not isinstance(error, SmolVLMError):
            rows = [self._packs.where(row) for sample in self._planned.samples for row in sample]
            error.add_note(
                f"while the pack of these rows was made: {listed(rows, at_most=len(rows))}"
            )


def _in_shared_memory(pack: Pack) -> Pack:
    """Move a pack's tensors to where the trainer's process reads them.

    torch would do it in a thread of the queue, where a failure leaves the trainer waiting for ever.
    """
    try:
        for tensor in pack.tensors():
            tensor.share_memory_()
    except RuntimeError as error:
        raise ConfigError(
            f"no shared memory left to hand a pack to the trainer ({error})",
            where="data.prefetch_mb",
            fix="lower data.prefetch_mb, give the machine more of it (in a container: --shm-size), "
            "or set "
            "train.dataloader_num_workers: 0",
        ) from error
    return pack
