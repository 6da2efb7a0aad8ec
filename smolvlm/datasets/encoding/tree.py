"""Where tokens stop being seen: the one attention rule of the program, as numbers.

Query q sees key k <=> k <= q < scope_end[k].
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32


def scope_ends(branch_lengths: Sequence[int], *, trunk_length: int) -> Int32[np.ndarray, " seq"]:
    """Return where each token of a tree stops being seen.

    A trunk of 3 with branches of 2 and 1 gives [6, 6, 6, 5, 5, 6].

    Args:
        branch_lengths: tokens in each branch, in order; one branch and no trunk is a plain
            conversation.
        trunk_length: tokens in the shared trunk.

    Raises:
        ValueError: a length is negative, or trunk and branches are all empty.
    """
    if trunk_length < 0 or any(length < 0 for length in branch_lengths):
        raise ValueError(
            f"lengths must not be negative: trunk {trunk_length}, branches {list(branch_lengths)}"
        )
    total = trunk_length + sum(branch_lengths)
    if not total:
        raise ValueError("a tree needs at least one token")
    ends = trunk_length + np.cumsum(np.asarray(branch_lengths, dtype=np.int64))
    return np.concatenate([np.full(trunk_length, total), np.repeat(ends, branch_lengths)]).astype(
        np.int32
    )


def visible(scope_end: Int[np.ndarray, " seq"]) -> Bool[np.ndarray, "seq seq"]:
    """Return the rule as a dense table [query, key]: for tests and pictures, never for training."""
    query = np.arange(len(scope_end))[:, None]
    key = np.arange(len(scope_end))[None, :]
    return (key <= query) & (query < scope_end[None, :])
