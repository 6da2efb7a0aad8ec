"""Which rank of a context group holds which tokens of a pack.

In: `scope_end`. Out: each rank's positions. Every rank gets about the same number of tokens, which
is its memory, and about the same number of visible (query, key) pairs, which is its attention. A
pack of short conversations is cut into one stretch a rank; of one long conversation the last
stretch would see most, so each rank gets two stretches, an early and a late one (zig-zag); what
neither balances is cut finer. A pure function of `scope_end`: all ranks find the same.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Int, Int64

UNIT = 128
"""Stretches begin at multiples of this where that costs little: blocks of `flex_attention` then
lie within one stretch."""
UNITS_PER_STRETCH = 32
"""How many units a stretch has at least where it is cut at their borders: a rank has then at most
1/32 more tokens than another."""
STRETCHES_PER_RANK = (1, 2, 4, 8)
BALANCED = 1.02
"""The most pairs of a rank over their mean; the fewest stretches that come below are taken."""


def visible_pairs(scope_end: Int[np.ndarray, " seq"]) -> Int64[np.ndarray, " seq"]:
    """Return how many keys each query sees: those before it and itself, less those that ended."""
    positions = np.arange(len(scope_end))
    num_ended = np.searchsorted(np.sort(scope_end), positions, side="right")
    return positions + 1 - num_ended


def deal_tokens(
    scope_end: Int[np.ndarray, " seq"], *, num_ranks: int
) -> tuple[Int64[np.ndarray, " own"], ...]:
    """Return the positions that each rank holds, ascending; each has at least one.

    Args:
        scope_end: of a pack of at least `num_ranks` tokens.
        num_ranks: of the group.
    """
    begins = np.concatenate([[0], np.cumsum(visible_pairs(scope_end))])
    best: tuple[Int64[np.ndarray, " own"], ...] = ()
    least = np.inf
    for stretches in STRETCHES_PER_RANK:
        borders = _borders(len(scope_end), num_ranks=num_ranks, stretches=stretches)
        if borders is None:
            break
        pairs = np.diff(begins[borders])
        owners = _dealt(pairs, num_ranks=num_ranks, stretches=stretches)
        loads = np.bincount(owners, weights=pairs, minlength=num_ranks)
        if loads.max() / loads.mean() < least:
            least = float(loads.max() / loads.mean())
            ranges = [np.arange(start, end) for start, end in pairwise(borders.tolist())]
            best = tuple(
                np.concatenate([ranges[number] for number in np.flatnonzero(owners == rank)])
                for rank in range(num_ranks)
            )
        if least <= BALANCED:
            break
    return best


def _borders(length: int, *, num_ranks: int, stretches: int) -> Int64[np.ndarray, " border"] | None:
    """Return where equal stretches begin, and the pack's end; None where it is too short."""
    number = num_ranks * stretches
    if length < number:
        return None
    unit = UNIT if length >= UNITS_PER_STRETCH * UNIT * number else 1
    borders = np.arange(number + 1) * (length // unit) // number * unit
    borders[-1] = length
    return borders


def _dealt(
    pairs: Int[np.ndarray, " stretch"], *, num_ranks: int, stretches: int
) -> Int64[np.ndarray, " stretch"]:
    """Return each stretch's rank: the dearest first, each to the rank with the least to do that
    still has a place."""
    owners = np.zeros(len(pairs), dtype=np.int64)
    if stretches == 1:
        return np.arange(num_ranks)
    loads, places = [0] * num_ranks, [stretches] * num_ranks
    for number in np.argsort(-pairs, kind="stable").tolist():
        rank = min((r for r in range(num_ranks) if places[r]), key=loads.__getitem__)
        owners[number] = rank
        loads[rank] += int(pairs[number])
        places[rank] -= 1
    return owners
