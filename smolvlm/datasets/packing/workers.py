"""One function over many items on all cores; results as they are done."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import current_process, get_context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.decode_time import on_overrun
from smolvlm.parent_process import Parent

GUARD = (
    'in a script, put what starts it behind `if __name__ == "__main__":`, since each process reads '
    "the script "
    "again; or give num_workers=1"
)
FEWER = (
    "most likely memory ran out: give fewer processes (--workers, num_workers); with one, a row "
    "that crashes the library that decodes it ends this process, which then says where"
)
_STARTED = "started"
"""Beside the arguments, once a process has read them."""
_LAST_WORDS = "last_words"
Item = TypeVar("Item")
Result = TypeVar("Result")


def over_cores(
    make: Callable[..., Callable[[Item], Result]],
    arguments: tuple[object, ...],
    items: Sequence[Item],
    *,
    num_workers: int | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the item, result) in any order.

    Args:
        make: called once in each process with `arguments`, it gives the function; what it opens
            stays open.
        arguments: sent to each process once.
        items: what the function is called with, one at a time.
        num_workers: processes; None is one a core. With one, everything happens in this process.

    Raises:
        SampleError: a process ended itself over a row (`media.decode_time`).
        ConfigError: a process died: killed, or a script starts them without `if __name__ ==
            "__main__":`.
    """
    workers = min(num_workers or os.cpu_count() or 1, len(items))
    if workers < 2:
        function = make(*arguments)
        for number, item in enumerate(items):
            yield number, function(item)
        return
    if getattr(
        current_process(), "_inheriting", False
    ):  # what multiprocessing itself asks (Python 3.11 to 3.13)
        raise ConfigError(
            "this process is being started to read rows, and came here itself", fix=GUARD
        )
    # Processes are started afresh: a fork of a process that has run torch's threads may hang.
    context = get_context("spawn")
    with (
        _file_of((Parent.here(), make, arguments)) as path,
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=(path,)) as pool,
    ):
        try:
            with _without_interrupts():
                running: dict[Future[Result], int] = {
                    pool.submit(_call, item): number for number, item in enumerate(items)
                }
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            if (path.parent / _LAST_WORDS).is_file():
                raise _loaded(path.parent / _LAST_WORDS) from None
            raise _death(path) from error
        finally:
            pool.shutdown(cancel_futures=True)


_function: list[Callable[..., object]] = []


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, which a terminal sends to all of them.

    The one that started them ends them. A mask of signals is inherited; one that comes meanwhile is
    handled when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextmanager
def _file_of(value: object) -> Iterator[Path]:
    """Keep a value in a file for as long as the context is open.

    What is handed to a process itself goes through a pipe: if the process dies before it has read
    all of it, Python (3.11 to 3.14) waits for ever where it is more than the pipe holds.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "arguments"
        path.write_bytes(ForkingPickler.dumps(value))
        yield path


def _death(path: Path) -> ConfigError:
    """Return what is said of a process that died, by whether any came to its first row."""
    if path.with_name(_STARTED).exists():
        what = "a process that reads rows was killed, or crashed, while it read"
        return ConfigError(what, where="num_workers", fix=FEWER)
    return ConfigError("a process that reads rows died", where="num_workers", fix=GUARD)


def _loaded(path: Path) -> Any:
    loads: Callable[[bytes], Any] = getattr(ForkingPickler, "loads")  # noqa: B009 - has no type
    return loads(path.read_bytes())


def _start(path: Path) -> None:
    # Our own file, in a folder that nobody else may write to.
    parent, make, arguments = _loaded(path)
    parent.end_with()
    path.with_name(_STARTED).touch()
    _function.append(make(*arguments))
    on_overrun.append(partial(_leave_word, path.parent / _LAST_WORDS))


def _leave_word(path: Path, error: SampleError) -> None:
    """Say why this process ends itself where the one that started it finds it."""
    partial_file = path.with_suffix(f".{os.getpid()}")
    partial_file.write_bytes(ForkingPickler.dumps(error))
    partial_file.replace(path)


def _call(item: object) -> Any:
    return _function[0](item)
