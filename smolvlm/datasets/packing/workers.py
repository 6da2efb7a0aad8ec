"""One function over many items on all cores; results as they are done."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def over_cores(
    make: Callable[..., Callable[[Item], Result]],
    arguments: tuple[Any, ...],
    items: Sequence[Item],
    *,
    num_workers: int | None = None,
) -> Iterator[tuple[int, Result]]:
    """Yield (number of the item, result) in any order.

    Args:
        make: called once in each process with `arguments`, it gives the function; what it opens stays open.
        arguments: sent to each process once.
        items: what the function is called with, one at a time.
        num_workers: processes; None is one a core. With one, everything happens in this process.
    """
    workers = min(num_workers or os.cpu_count() or 1, len(items))
    if workers < 2:
        function = make(*arguments)
        for number, item in enumerate(items):
            yield number, function(item)
        return
    # Processes are started afresh: a fork of a process that has run torch's threads may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make, arguments)) as pool:
        running: dict[Future[Any], int] = {pool.submit(_call, item): number for number, item in enumerate(items)}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


_function: list[Callable[[Any], Any]] = []


def _start(make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
    _function.append(make(*arguments))


def _call(item: Any) -> Any:
    return _function[0](item)
