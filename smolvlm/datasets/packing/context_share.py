"""One rank's share of a pack that several ranks hold together.

In: a pack, whole. Out: a pack of this rank's tokens, the targets that they predict, the tiles that
it encodes, and a `ContextShare` that says how it hangs together with the others'. A pure function
of the pack and of the rank. What the ranks have to agree on does not depend on what the vision
cache holds: two ranks may find the same tile there or not, a moment apart.

- A target belongs to the rank that holds `predict_from`.
- Each tile is encoded once in the group, by a rank that shows it as long as that has no more than
  its part to do; a rank that shows a tile gets its features from whoever encodes it. Pictures that
  lie across a border are shown by two.
- What is counted once a pack (rows, budget, rows that were skipped) is rank 0's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.context_ranks.partition import deal_tokens
from smolvlm.model.context_ranks.share import ContextShare, RectanglePlan, TileExchange

PlanRectangle = Callable[
    [
        Int[np.ndarray, " seq"],
        Int64[np.ndarray, " query"],
        Int64[np.ndarray, " key"],
    ],
    RectanglePlan,
]
"""Plans some of a pack's queries by some of its keys: `scope_end`, and positions of both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextCut:
    """Cuts packs for one rank of a context group; handed to loader workers."""

    rank: int
    num_ranks: int
    plan_rectangle: PlanRectangle
    """For the device that the packs go to."""
    goes_round: bool = False
    """Whether keys and values go round the ranks instead of being gathered."""

    def __call__(self, pack: Pack) -> Pack:
        """Return this rank's share of a pack."""
        filled = _filled(pack, self.num_ranks)
        scope_end = filled.scope_end.numpy()
        held = deal_tokens(scope_end, num_ranks=self.num_ranks)
        owner = np.empty(len(scope_end), dtype=np.int64)
        place = np.empty(len(scope_end), dtype=np.int64)
        for rank, positions in enumerate(held):
            owner[positions] = rank
            place[positions] = np.arange(len(positions))
        own = held[self.rank]
        is_target = torch.from_numpy(owner[pack.predict_from.numpy()] == self.rank)
        is_image = owner[pack.image_places.numpy()] == self.rank
        tiles = _Tiles.of(pack, owner, num_ranks=self.num_ranks)
        key_sets = held if self.goes_round else (np.arange(len(scope_end)),)
        share = ContextShare(
            rank=self.rank,
            num_tokens=tuple(map(len, held)),
            num_counted=int((own < len(pack.input_ids)).sum()) if pack.where else 0,
            key_order=torch.from_numpy(owner * max(map(len, held)) + place),
            rectangles=tuple(self.plan_rectangle(scope_end, own, keys) for keys in key_sets),
            exchange=tiles.exchange(self.rank) if tiles.num_slots else None,
            digest=_digest(pack),
        )
        computed, cached = tiles.encoded(self.rank)
        positions = torch.from_numpy(own)
        is_first = self.rank == 0
        target_groups = pack.target_groups[is_target]
        return replace(
            pack,
            input_ids=filled.input_ids[positions],
            position_ids=filled.position_ids[positions],
            scope_end=filled.scope_end[positions],
            attention=None,
            image_places=torch.from_numpy(place[pack.image_places.numpy()[is_image]]),
            predict_from=torch.from_numpy(place[pack.predict_from.numpy()])[is_target],
            target_ids=pack.target_ids[is_target],
            target_weights=pack.target_weights[is_target],
            target_groups=target_groups,
            group_sizes=torch.bincount(target_groups, minlength=pack.num_groups),
            target_sources=pack.target_sources[is_target],
            tiles=pack.tiles[torch.from_numpy(computed)],
            tile_keys=tuple(pack.tile_keys[row] for row in computed.tolist()),
            cached_features=None
            if pack.cached_features is None or not len(cached)
            else pack.cached_features[torch.from_numpy(cached)],
            slot_tiles=tiles.slot_tiles(self.rank),
            slot_sizes=tiles.slot_sizes(self.rank),
            where=pack.where if is_first else (),
            shared_where=pack.where,
            skipped=pack.skipped if is_first else (),
            context=share,
        )


def _filled(pack: Pack, num_tokens: int) -> Pack:
    """Return a pack of at least so many tokens; those behind it are seen by themselves alone."""
    more = num_tokens - len(pack.input_ids)
    if more <= 0:
        return pack
    ends = torch.arange(len(pack.input_ids), num_tokens) + 1
    return replace(
        pack,
        input_ids=torch.cat([pack.input_ids, pack.input_ids[-1:].expand(more)]),
        position_ids=torch.cat([pack.position_ids, ends * 0]),
        scope_end=torch.cat([pack.scope_end, ends]),
    )


def _digest(pack: Pack) -> int:
    """Return a number of the pack's tokens, targets and slots."""
    digest = xxhash.xxh3_64()
    fields = (pack.input_ids, pack.scope_end, pack.predict_from, pack.target_ids)
    for tensor in (*fields, pack.target_weights, torch.from_numpy(_numbered(pack))):
        digest.update(tensor.numpy().tobytes())
    return digest.intdigest() >> 2  # fits a signed integer, and so does its negative


def _numbered(pack: Pack) -> Int64[np.ndarray, " shown"]:
    """Return `slot_tiles` with tiles numbered in the order in which they are first shown."""
    _, first, inverse = np.unique(pack.slot_tiles.numpy(), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tiles:
    """Who shows and who encodes the tiles of a pack; tiles are numbered as they are first shown."""

    shown: Int64[np.ndarray, " shown"]
    """Tiles of the slots, slot after slot."""
    rows: Int64[np.ndarray, " tile"]
    """Of each tile in the pack's features, computed ones before cached ones."""
    slot_of: Int64[np.ndarray, " shown"]
    num_slots: int
    tokens_per_slot: int
    is_averaged: bool
    num_computed: int
    """In the pack."""
    image_owner: Int64[np.ndarray, " image_token"]
    """Which rank holds each image token."""
    shows: Bool[np.ndarray, "rank tile"]
    encoder: Int64[np.ndarray, " tile"]
    """Which rank encodes each tile."""

    @classmethod
    def of(cls, pack: Pack, owner: Int64[np.ndarray, " seq"], *, num_ranks: int) -> "_Tiles":
        shown = _numbered(pack)
        rows = np.zeros(shown.max(initial=-1) + 1, dtype=np.int64)
        rows[shown] = pack.slot_tiles.numpy()
        sizes = np.ones_like(shown) if pack.slot_sizes is None else pack.slot_sizes.numpy()
        slot_of = np.repeat(np.arange(len(sizes)), sizes)
        image_owner = owner[pack.image_places.numpy()]
        per_slot = len(image_owner) // max(len(sizes), 1)
        shows = np.zeros((num_ranks, len(rows)), dtype=bool)
        for rank in range(num_ranks):
            slots = np.unique(np.flatnonzero(image_owner == rank) // max(per_slot, 1))
            shows[rank, shown[np.isin(slot_of, slots)]] = True
        return cls(
            shown=shown,
            rows=rows,
            slot_of=slot_of,
            num_slots=len(sizes),
            tokens_per_slot=per_slot,
            is_averaged=pack.slot_sizes is not None,
            num_computed=len(pack.tiles),
            image_owner=image_owner,
            shows=shows,
            encoder=_shared_out(shows),
        )

    def encoded(self, rank: int) -> tuple[Int64[np.ndarray, " own"], Int64[np.ndarray, " own"]]:
        """Return the rows among the pack's tiles, and among its cached features, that a rank takes
        to the connector."""
        rows = self.rows[self.encoder == rank]
        return rows[rows < self.num_computed], rows[rows >= self.num_computed] - self.num_computed

    def exchange(self, rank: int) -> TileExchange:
        """Return what a rank sends and gets."""
        own = np.flatnonzero(self.encoder == rank)
        is_cached = self.rows[own] >= self.num_computed
        row_of = np.zeros(len(self.rows), dtype=np.int64)
        row_of[own[np.argsort(is_cached, kind="stable")]] = np.arange(len(own))
        sent = [own[shows[own]] for shows in self.shows]
        places = np.flatnonzero(self.image_owner == rank)
        slots = self._slots(rank)
        rows = np.searchsorted(slots, places // self.tokens_per_slot) * self.tokens_per_slot
        return TileExchange(
            sent_rows=torch.from_numpy(row_of[np.concatenate(sent)]),
            num_sent=tuple(map(len, sent)),
            num_received=tuple(map(len, self._received(rank))),
            image_rows=torch.from_numpy(rows + places % self.tokens_per_slot),
        )

    def slot_tiles(self, rank: int) -> Int64[Tensor, " shown"]:
        """Return the tiles of a rank's slots, as rows of the features that it gets."""
        place = np.zeros(len(self.rows), dtype=np.int64)
        received = self._received(rank)
        order = np.concatenate(received) if received else np.zeros(0, np.int64)
        place[order] = np.arange(len(order))
        return torch.from_numpy(place[self.shown[np.isin(self.slot_of, self._slots(rank))]])

    def slot_sizes(self, rank: int) -> Int64[Tensor, " slot"] | None:
        """Return how many tiles each of a rank's slots shows the mean of; None where each has
        one."""
        if not self.is_averaged:
            return None
        sizes = np.bincount(self.slot_of, minlength=self.num_slots)[self._slots(rank)]
        return torch.from_numpy(sizes.astype(np.int64))

    def _slots(self, rank: int) -> Int64[np.ndarray, " slot"]:
        """Return the slots of which a rank holds any token."""
        places = np.flatnonzero(self.image_owner == rank)
        return np.unique(places // max(self.tokens_per_slot, 1))

    def _received(self, rank: int) -> list[Int64[np.ndarray, " tile"]]:
        """Return the tiles that a rank gets from each rank."""
        return [
            np.flatnonzero(self.shows[rank] & (self.encoder == sender))
            for sender in range(len(self.shows))
        ]


def _shared_out(shows: Bool[np.ndarray, "rank tile"]) -> Int64[np.ndarray, " tile"]:
    """Return which rank encodes each tile: one that shows it while it has room, else the one with
    the least to do."""
    num_ranks, num_tiles = shows.shape
    room = -(-num_tiles // num_ranks)
    loads = [0] * num_ranks
    encoder = np.zeros(num_tiles, dtype=np.int64)
    for tile in range(num_tiles):
        showing = [rank for rank in np.flatnonzero(shows[:, tile]).tolist() if loads[rank] < room]
        rank = min(showing or range(num_ranks), key=loads.__getitem__)
        encoder[tile] = rank
        loads[rank] += 1
    return encoder
