"""A pack cut for the ranks that hold it together: everything on one of them, once, and each knows
what it needs of the others'."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention.flex_rectangle import plan_flex_rectangle
from smolvlm.model.attention.rectangle import plan_parts_rectangle
from smolvlm.records import SkippedRow

TOKENS_PER_SLOT = 4
IMAGE, SIDE = 1, 2


def pack_of(seed: int, *, num_slots: int, is_averaged: bool, cached_share: float = 0.0) -> Pack:
    """A pack whose token at position p is 100 + p, or an image token; whose tile t is full of t;
    whose cached features of tile t are t. The seed alone decides which tiles there are."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 4, num_slots) if is_averaged else np.ones(num_slots, int)
    num_tiles = int(random.integers(1, 1 + max(1, sizes.sum())))
    shown = random.integers(0, num_tiles, sizes.sum())
    tiles, shown = np.unique(shown, return_inverse=True)
    # What the cache holds moves the tiles' rows, and nothing else.
    is_cached = np.random.default_rng(seed + 1).random(len(tiles)) < cached_share
    order = np.argsort(is_cached, kind="stable")
    row_of = np.argsort(order)
    computed, cached = tiles[order][: (~is_cached).sum()], tiles[order][(~is_cached).sum() :]
    ids: list[int] = []
    for _ in range(num_slots):
        ids += [0] * int(random.integers(0, 7)) + [IMAGE] * TOKENS_PER_SLOT
    ids += [0] * int(random.integers(1, 30))
    input_ids = np.array(ids)
    input_ids[input_ids != IMAGE] = 100 + np.flatnonzero(input_ids != IMAGE)
    length = len(ids)
    ends = np.sort(random.choice(np.arange(1, length + 1), int(random.integers(1, 4))))
    ends[-1] = length
    positions = np.arange(length)
    targets = np.sort(random.choice(length, int(random.integers(0, length)), replace=False))
    return Pack(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(positions.copy()),
        scope_end=torch.from_numpy(ends[np.searchsorted(ends, positions, side="right")]),
        attention=None,
        image_places=torch.from_numpy(np.flatnonzero(input_ids == IMAGE)),
        predict_from=torch.from_numpy(targets),
        target_ids=torch.from_numpy(targets + 1000),
        target_weights=torch.from_numpy(targets + 0.5).float(),
        target_groups=torch.from_numpy(targets * 0),
        group_sizes=torch.tensor([len(targets)]),
        reference_logps=None,
        tiles=torch.from_numpy(
            np.broadcast_to(
                computed[:, None, None, None].astype(np.uint8), (len(computed), 3, SIDE, SIDE)
            ).copy()
        ),
        cached_features=torch.from_numpy(cached * 1.0).view(-1, 1, 1) if len(cached) else None,
        slot_tiles=torch.from_numpy(row_of[shown]),
        slot_sizes=torch.from_numpy(sizes) if is_averaged else None,
        target_sources=torch.from_numpy(targets * 0),
        tile_keys=tuple(bytes([tile]) for tile in computed.tolist()),
        where=("rows:1",),
        media_states=(),
        budget_tokens=300,
        skipped=(SkippedRow(where="rows:9", reason="corrupt"),),
    )


def features_of(share: Pack) -> torch.Tensor:
    """What a rank encodes: of each tile, its number."""
    computed = share.tiles[:, 0, 0, 0].double()
    cached = torch.zeros(0) if share.cached_features is None else share.cached_features.flatten()
    return torch.cat([computed, cached.double()])


def exchanged(shares: list[Pack]) -> list[torch.Tensor]:
    """What each rank gets, as `all_to_all` would bring it."""
    sent = [
        features_of(share)[share.context.exchange.sent_rows].split(share.context.exchange.num_sent)
        for share in shares
    ]
    received = [torch.cat([parts[rank] for parts in sent]) for rank in range(len(shares))]
    for share, rows in zip(shares, received, strict=True):
        assert len(rows) == sum(share.context.exchange.num_received)
    return received


def image_values(pack: Pack, features: torch.Tensor) -> torch.Tensor:
    """What each image token stands for: its slot's mean tile, and its place in the slot."""
    sizes = pack.slot_sizes
    shown = features[pack.slot_tiles]
    slots = shown if sizes is None else torch.stack([s.mean() for s in shown.split(sizes.tolist())])
    return (slots[:, None] + torch.arange(TOKENS_PER_SLOT) / 10).flatten()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_slots=st.integers(0, 9),
    is_averaged=st.booleans(),
    num_ranks=st.integers(2, 5),
    cached=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5),
)
def test_the_shares_are_the_pack(
    seed: int, num_slots: int, is_averaged: bool, num_ranks: int, cached: list[float]
) -> None:
    """Each rank finds other tiles in the cache."""
    whole = pack_of(seed, num_slots=num_slots, is_averaged=is_averaged)
    shares = [
        ContextCut(rank=rank, num_ranks=num_ranks, plan_rectangle=plan_parts_rectangle)(
            pack_of(seed, num_slots=num_slots, is_averaged=is_averaged, cached_share=cached[rank])
        )
        for rank in range(num_ranks)
    ]
    contexts = [share.context for share in shares]
    assert len({context.digest for context in contexts}) == 1
    assert {context.num_tokens for context in contexts} == {
        tuple(len(share.input_ids) for share in shares)
    }
    assert sum(context.num_counted for context in contexts) == len(whole.input_ids)
    # Tokens: gathered, rank after rank, each filled up, in the pack's order.
    longest = max(contexts[0].num_tokens)
    for name in ("input_ids", "scope_end"):
        rows = [torch.nn.functional.pad(getattr(s, name), (0, longest)) for s in shares]
        gathered = torch.cat([row[:longest] for row in rows])[contexts[0].key_order]
        assert torch.equal(gathered[: len(whole.input_ids)], getattr(whole, name))
    # Targets: the position that a target is predicted from is its id less 1000.
    targets = torch.cat([share.target_ids for share in shares])
    assert sorted(targets.tolist()) == whole.target_ids.tolist()
    for share in shares:
        assert torch.equal(share.target_weights, share.target_ids - 1000 + 0.5)
        at = share.position_ids[share.predict_from]
        assert torch.equal(at, share.target_ids - 1000)
        assert (share.input_ids[share.image_places] == IMAGE).all()
    # Tiles: encoded once, and shown where they were.
    if num_slots == 0:
        assert all(context.exchange is None for context in contexts)
        return
    shown = np.unique(features_of(whole)[whole.slot_tiles].numpy())
    encoded = torch.cat([features_of(share) for share in shares])
    assert sorted(encoded.tolist()) == shown.tolist()
    most = max(len(features_of(share)) for share in shares)
    assert most <= -(-len(shown) // num_ranks)
    values = image_values(whole, features_of(whole)).tolist()
    place_of = dict(zip(whole.image_places.tolist(), values, strict=True))
    for share, features in zip(shares, exchanged(shares), strict=True):
        rows = share.context.exchange.image_rows
        found = image_values(share, features)[rows] if len(rows) else torch.zeros(0)
        places = share.position_ids[share.image_places].tolist()
        assert found.tolist() == [place_of[place] for place in places]
        assert [bytes([int(tile[0, 0, 0])]) for tile in share.tiles] == list(share.tile_keys)


def test_a_picture_across_a_border_goes_to_both_ranks() -> None:
    pack = pack_of(3, num_slots=1, is_averaged=False)
    length = len(pack.input_ids)
    start = length // 2 - TOKENS_PER_SLOT // 2
    ids = torch.full((length,), 100)
    ids[start : start + TOKENS_PER_SLOT] = IMAGE
    pack = replace(
        pack,
        input_ids=ids,
        scope_end=torch.arange(length) + 1,
        image_places=torch.arange(start, start + TOKENS_PER_SLOT),
    )
    shares = [
        ContextCut(rank=rank, num_ranks=2, plan_rectangle=plan_parts_rectangle)(pack)
        for rank in range(2)
    ]
    assert [share.context.exchange.image_rows.tolist() for share in shares] == [[0, 1], [2, 3]]
    assert [share.context.exchange.num_sent for share in shares] == [(1, 1), (0, 0)]
    assert [len(share.tiles) for share in shares] == [1, 0]


def test_what_is_counted_once_is_the_first_ranks() -> None:
    pack = pack_of(5, num_slots=2, is_averaged=False)
    first, second = (
        ContextCut(rank=rank, num_ranks=2, plan_rectangle=plan_parts_rectangle)(pack)
        for rank in range(2)
    )
    assert (first.where, first.skipped) == (pack.where, pack.skipped)
    assert (second.where, second.skipped) == ((), ())
    assert first.shared_where == second.shared_where == pack.where


@pytest.mark.parametrize("num_ranks", [2, 5])
def test_a_pack_without_rows_is_filled_up(num_ranks: int) -> None:
    blank = replace(
        pack_of(1, num_slots=0, is_averaged=False),
        where=(),
        **{name: torch.zeros(1, dtype=torch.long) for name in ("input_ids", "position_ids")},
        scope_end=torch.ones(1, dtype=torch.long),
        **{
            name: torch.zeros(0, dtype=torch.long)
            for name in ("predict_from", "target_ids", "target_weights", "target_groups")
        },
    )
    for rank in range(num_ranks):
        share = ContextCut(rank=rank, num_ranks=num_ranks, plan_rectangle=plan_parts_rectangle)(
            blank
        )
        assert share.num_tokens == 0
        assert share.input_ids.tolist() == [0]
        assert share.scope_end.tolist() == [rank + 1]


def test_other_packs_have_other_digests() -> None:
    cut = ContextCut(rank=0, num_ranks=2, plan_rectangle=plan_parts_rectangle)
    pack = pack_of(5, num_slots=2, is_averaged=False)
    others = [
        pack_of(6, num_slots=2, is_averaged=False),
        replace(pack, target_weights=pack.target_weights * 2),
        replace(pack, slot_tiles=pack.slot_tiles.flip(0) * 0),
    ]
    digests = {cut(other).context.digest for other in [pack, *others]}
    assert len(digests) == 4
    assert all(0 <= digest < 2**62 for digest in digests)


@pytest.mark.parametrize("goes_round", [False, True])
@pytest.mark.parametrize("plan", [plan_parts_rectangle, plan_flex_rectangle])
def test_a_share_moves_with_its_pack(plan: object, goes_round: bool) -> None:
    cut = ContextCut(rank=1, num_ranks=3, plan_rectangle=plan, goes_round=goes_round)
    share = pickle.loads(pickle.dumps(cut))(pack_of(7, num_slots=3, is_averaged=True))
    context = share.context
    assert context.goes_round == goes_round
    assert len(context.rectangles) == (3 if goes_round else 1)
    moved = context.to("meta")
    assert len(moved.tensors()) == len(context.tensors())
    assert all(tensor.device.type == "meta" for tensor in moved.tensors())
    held = {id(tensor) for tensor in share.tensors()}
    assert held >= {id(tensor) for tensor in context.tensors()}
