"""Every token on one rank, once; about as many tokens, and visible pairs, on each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.tree import visible
from smolvlm.model.context_ranks.partition import (
    BALANCED,
    UNIT,
    deal_tokens,
    visible_pairs,
)
from tests.model.attention.dense_rule import packs, scope_end_of


def stretches_of(positions: np.ndarray) -> int:
    return 1 + int((np.diff(positions) != 1).sum())


def imbalance(scope_end: np.ndarray, held: tuple[np.ndarray, ...]) -> float:
    pairs = visible_pairs(scope_end)
    loads = [int(pairs[own].sum()) for own in held]
    return max(loads) / (sum(loads) / len(loads))


@settings(max_examples=100, deadline=None)
@given(pack=packs)
def test_pairs_are_those_of_the_dense_rule(pack: list) -> None:
    scope_end = scope_end_of(pack)
    assert visible_pairs(scope_end).tolist() == visible(scope_end).sum(axis=1).tolist()


@settings(max_examples=200, deadline=None)
@given(pack=st.lists(packs, min_size=1, max_size=20), num_ranks=st.integers(1, 8))
def test_every_token_is_held_once(pack: list, num_ranks: int) -> None:
    scope_end = scope_end_of([node for nodes in pack for node in nodes])
    if len(scope_end) < num_ranks:
        return
    held = deal_tokens(scope_end, num_ranks=num_ranks)
    assert len(held) == num_ranks
    assert sorted(np.concatenate(held).tolist()) == list(range(len(scope_end)))
    assert all((np.diff(own) > 0).all() for own in held)
    sizes = [len(own) for own in held]
    assert min(sizes) >= 1
    # Equal stretches differ by one token.
    assert max(sizes) - min(sizes) <= max(map(stretches_of, held))


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["one", "short", "mixed", "trees"])
def test_pairs_are_balanced(kind: str, seed: int, num_ranks: int) -> None:
    random = np.random.default_rng(seed)
    pack = {
        "one": [(50_000, [])],
        "short": [(int(size), []) for size in random.integers(50, 400, 200)],
        "mixed": [(30_000, []), *((int(size), []) for size in random.integers(50, 3000, 20))],
        "trees": [
            (int(size), [(int(own), []) for own in random.integers(20, 400, 30)])
            for size in random.integers(500, 5000, 5)
        ],
    }[kind]
    scope_end = scope_end_of(pack)
    held = deal_tokens(scope_end, num_ranks=num_ranks)
    assert imbalance(scope_end, held) < 1.1
    sizes = [len(own) for own in held]
    assert max(sizes) / (sum(sizes) / num_ranks) < 1.05


def test_one_conversation_is_cut_zig_zag() -> None:
    first, second = deal_tokens(np.full(400, 400), num_ranks=2)
    assert first.tolist() == [*range(100), *range(300, 400)]
    assert second.tolist() == [*range(100, 300)]


def test_short_conversations_are_cut_into_one_stretch_a_rank() -> None:
    scope_end = np.repeat(np.arange(1, 101) * 20, 20)
    held = deal_tokens(scope_end, num_ranks=4)
    assert [stretches_of(own) for own in held] == [1] * 4
    assert [int(own[0]) for own in held] == [0, 500, 1000, 1500]
    assert imbalance(scope_end, held) <= BALANCED


def test_long_packs_are_cut_where_blocks_begin() -> None:
    scope_end = np.full(70_001, 70_001)
    held = deal_tokens(scope_end, num_ranks=4)
    assert sorted(np.concatenate(held).tolist()) == list(range(70_001))
    for own in held:
        begins = own[np.concatenate([[True], np.diff(own) != 1])]
        assert (begins % UNIT == 0).all()
