"""`python -m benchmarks.block_lists`: the block lists of a pack from its plan, beside torch's from
all pairs.

Both on the CPU, on packs of trees: a trunk of 200 tokens and ten branches of 20. CPU time, median
of five.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from smolvlm.datasets.encoding.tree import scope_ends
from smolvlm.model.attention.flex import plan_flex

LENGTHS = (2_000, 4_000, 16_000, 64_000)
MAX_PAIRS_LENGTH = 16_000
"""Beyond it a table of all pairs takes gigabytes."""
ROUNDS = 5


def main() -> int:
    """Print a table and return the exit status."""
    table = Table(
        "tokens", "from the plan, ms", "from all pairs, ms", title="block lists of a pack"
    )
    for length in LENGTHS:
        scope_end = pack_of_trees(length)
        ours = milliseconds(lambda: plan_flex(scope_end))  # noqa: B023 - called at once
        theirs = None
        if length <= MAX_PAIRS_LENGTH:
            theirs = milliseconds(lambda: of_all_pairs(scope_end))  # noqa: B023 - called at once
        table.add_row(
            f"{len(scope_end):,}", f"{ours:.2f}", "" if theirs is None else f"{theirs:.1f}"
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    return 0


def pack_of_trees(length: int) -> np.ndarray:
    """Return `scope_end` of a pack of so many tokens, in trees of 400."""
    tree = scope_ends([20] * 10, trunk_length=200).astype(np.int64)
    return np.concatenate([tree + start for start in range(0, length, len(tree))])


def of_all_pairs(scope_end: np.ndarray) -> None:
    """Make the block mask as torch does."""
    ends = torch.from_numpy(scope_end)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends[key])

    create_block_mask(sees, None, None, len(ends), len(ends), device="cpu")


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median CPU time of a call, ms; the first one, which may load something, is left
    out."""
    run()
    times = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        run()
        times.append(time.process_time() - begun)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
