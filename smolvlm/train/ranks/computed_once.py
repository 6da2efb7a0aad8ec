"""What the first rank computes and every rank has: measured rows, and the plan of all steps.

In: a function, on every rank. Out: what it returned on the first, on all of them; the others wait.
Columns (numpy arrays) lie in one file of the cache folder that all ranks of a machine map, so a
machine with many ranks holds them once; a machine that does not see the first one's file is sent
it, and a rank that sees no file at all holds a copy. Tables of rows are not sent: each rank opens
its own.

Pickles are read here from the run's own first rank alone, over the ranks' own connections, which
also carry gradients.
"""

import io
import mmap
import os
import pickle
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist

from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.disk.atomic_files import replacing
from smolvlm.errors import ConfigError, SmolVLMError
from smolvlm.home import cache_dir

Value = TypeVar("Value")
OpenTables = Callable[[], Sequence[RowTable]]
"""Opens the tables that a value stands on, in the order of its mixture."""
_LONGEST_WAIT = timedelta(days=30)
"""Millions of rows take hours to measure: nothing bounds the wait for a first rank that lives."""
_POLL_S = 0.05
_CHUNK_BYTES = 64 << 20
_ALIGNED = 64
_TOKEN_BYTES = 16
_LEFT_OVER_S = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class _Parts:
    """A value taken apart: what goes to every rank, but for the columns."""

    pickled: bytes
    """Without columns and tables."""
    sizes: tuple[int, ...]
    """Bytes of each column."""
    token: bytes
    """Names the file of the columns, and is its last bytes."""

    @property
    def path(self) -> Path:
        """The file, on this machine."""
        return cache_dir() / "plans" / f"{self.token.hex()}.columns"

    def places(self) -> list[int]:
        """Return where each column begins in the file, and at last where the token does."""
        return list(accumulate((-(-size // _ALIGNED) * _ALIGNED for size in self.sizes), initial=0))


def computed_once(compute: Callable[[], Value], *, open_tables: OpenTables) -> Value:
    """Return what the first rank computes, on every rank; without several, call the function.

    Args:
        compute: called on the first rank alone.
        open_tables: called on the others.

    Raises:
        SmolVLMError: the first rank's, on every rank.
        ConfigError: another machine's files of rows are not the first one's.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return compute()
    with _cpu_group() as group:
        if dist.get_rank() == 0:
            return _handed_out(compute, group)
        return cast(Value, _received(open_tables, group))


@contextmanager
def _cpu_group() -> Iterator[Any]:
    """Open a group over which ranks wait as long as it takes."""
    group = dist.new_group(backend="gloo", timeout=_LONGEST_WAIT)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def _handed_out(compute: Callable[[], Value], group: Any) -> Value:
    """Compute a value on the first rank, and hand it to the others."""
    try:
        value = compute()
    except BaseException as error:
        _meet(group)
        _of_first(error if isinstance(error, SmolVLMError) else _first_ended(error), group)
        raise
    tables: list[RowTable] = []
    pickled, columns = _taken_apart(value, tables)
    sizes = tuple(column.nbytes for column in columns)
    parts = _Parts(pickled, sizes, secrets.token_bytes(_TOKEN_BYTES))
    is_written = _write(parts, columns)
    try:
        _meet(group)
        _of_first(parts, group)
        while _any_is_without(False, group):
            for column in columns:
                _send(column, group)
            dist.barrier(group=group)
        mapped = _mapped(parts)
    finally:
        if is_written:
            parts.path.unlink(missing_ok=True)  # who needs it has mapped it
    return value if mapped is None else cast(Value, _put_together(parts, mapped, tables))


def _received(open_tables: OpenTables, group: Any) -> object:
    """Return the value that the first rank hands out."""
    _meet(group)
    parts = _of_first(None, group)
    if isinstance(parts, SmolVLMError):
        raise parts
    columns = _mapped(parts)
    is_leader = os.environ.get("LOCAL_RANK", "0") == "0"
    num_rounds, is_copied = 0, False
    try:
        while _any_is_without(columns is None, group):
            received = [_receive(size, group) for size in parts.sizes]
            num_rounds += 1
            if columns is None and is_leader and num_rounds == 1:
                is_copied = _write(parts, received)
            dist.barrier(group=group)  # copies are whole
            if columns is None:
                columns = received if num_rounds > 1 else _mapped(parts)
            del received
    finally:
        if is_copied:
            parts.path.unlink(missing_ok=True)
    return _put_together(parts, columns or [], open_tables())


def _meet(group: Any) -> None:
    """Wait until all ranks are here, in such a way that Python still hears of signals."""
    work = dist.all_reduce(torch.zeros(1), group=group, async_op=True)
    assert work is not None, "an asynchronous call returns its work"
    while not work.is_completed():
        time.sleep(_POLL_S)
    work.wait()


def _of_first(value: object, group: Any) -> Any:
    """Return the first rank's object on every rank."""
    objects = [value]
    dist.broadcast_object_list(objects, src=0, group=group)
    return objects[0]


def _first_ended(error: BaseException) -> SmolVLMError:
    what = f"rank 0 ended while it measured and planned the rows ({type(error).__name__})"
    return ConfigError(what, where="rank 0", fix="see its own message")


def _any_is_without(is_without: bool, group: Any) -> bool:
    """Say, on every rank, whether one of them has no columns yet."""
    count = torch.tensor([int(is_without)])
    dist.all_reduce(count, group=group)
    return bool(count.item())


# ---- taken apart and put together


class _Pickler(pickle.Pickler):
    """Leaves columns and tables out."""

    def __init__(
        self, stream: io.BytesIO, columns: list[pickle.PickleBuffer], tables: list[RowTable]
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=columns.append)
        self._tables = tables

    def persistent_id(self, obj: object) -> tuple[int, int] | None:
        """Return a table's (number, rows); None of anything else."""
        if not isinstance(obj, RowTable):
            return None
        numbers = [number for number, table in enumerate(self._tables) if table is obj]
        if not numbers:
            self._tables.append(obj)
        return (numbers[0] if numbers else len(self._tables) - 1), len(obj)


class _Unpickler(pickle.Unpickler):
    """Puts this rank's tables in."""

    def __init__(
        self, stream: io.BytesIO, columns: Sequence[memoryview], tables: Sequence[RowTable]
    ) -> None:
        super().__init__(stream, buffers=columns)
        self._tables = tables

    def persistent_load(self, pid: tuple[int, int]) -> RowTable:
        """Return a table.

        Raises:
            ConfigError: it is another one than the first rank's.
        """
        number, num_rows = pid
        table = self._tables[number]
        if len(table) != num_rows:
            raise ConfigError(
                f"{len(table):,} rows on rank {dist.get_rank()}, and {num_rows:,} on rank 0",
                where=table.label,
                fix="give all machines the same files",
            )
        return table


def _taken_apart(value: object, tables: list[RowTable]) -> tuple[bytes, list[memoryview]]:
    """Return a value without its columns, and those; fill in its tables."""
    stream = io.BytesIO()
    columns: list[pickle.PickleBuffer] = []
    _Pickler(stream, columns, tables).dump(value)
    return stream.getvalue(), [column.raw() for column in columns]


def _put_together(
    parts: _Parts, columns: Sequence[memoryview], tables: Sequence[RowTable]
) -> object:
    return _Unpickler(io.BytesIO(parts.pickled), columns, tables).load()


# ---- columns in a file, and between machines


def _write(parts: _Parts, columns: Sequence[memoryview]) -> bool:
    """Write the file of the columns; say whether it is there."""
    path, places = parts.path, parts.places()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path.parent)
        with replacing(path, is_synced=False) as partial, partial.open("wb") as file:
            for place, column in zip(places, columns, strict=False):
                file.seek(place)
                file.write(column)
            file.seek(places[-1])
            file.write(parts.token)
    except OSError:  # full or read-only: ranks hold copies
        return False
    return True


def _remove_leftovers(folder: Path) -> None:
    """Remove what ranks that were killed meanwhile left: a file is needed for seconds."""
    for path in folder.glob("*.columns"):
        if time.time() - path.stat().st_mtime > _LEFT_OVER_S:
            path.unlink(missing_ok=True)


def _mapped(parts: _Parts) -> list[memoryview] | None:
    """Return the columns as this machine's file has them; None without it."""
    places = parts.places()
    try:
        with parts.path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return None
    if view[places[-1] :] != parts.token:
        return None
    return [view[place : place + size] for place, size in zip(places, parts.sizes, strict=False)]


def _send(column: memoryview, group: Any) -> None:
    for begin in range(0, column.nbytes, _CHUNK_BYTES):
        chunk = np.frombuffer(column[begin : begin + _CHUNK_BYTES], np.uint8).copy()
        dist.broadcast(torch.from_numpy(chunk), src=0, group=group)


def _receive(size: int, group: Any) -> memoryview:
    column = np.empty(size, np.uint8)
    for begin in range(0, size, _CHUNK_BYTES):
        dist.broadcast(torch.from_numpy(column[begin : begin + _CHUNK_BYTES]), src=0, group=group)
    return column.data
