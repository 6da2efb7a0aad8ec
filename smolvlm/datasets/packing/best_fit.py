"""Which samples share a pack: best fit under two budgets, tokens and tiles. Arrays in, arrays out.

A million samples are laid in seconds on one core. Open packs stand on shelves by the room they have
left; a shelf's big integer has a bit for each room that some pack has, so "the fullest pack that
still holds this" is a shift and a count of zeros, whatever the number of open packs.
"""

import numpy as np
from jaxtyping import Int32

WINDOW_SAMPLES = 8192
"""Samples laid together, the large ones first: more fills packs better and mixes less."""
LARGE_SHARE = 1 / 8
"""Of a pack: larger samples are laid largest first, smaller ones as they come, so that a pack mixes
sizes."""
MAX_OPEN_PACKS = 1024
"""Packs that wait for more samples at a time; the fullest is closed to open another."""
MAX_LOOKS = 32
"""Open packs that are asked whether a sample's tiles fit, on the shelf where some may hold them and
some not."""


class _Shelf:
    """Open packs by the room for tokens that they have left."""

    def __init__(self, max_tokens: int) -> None:
        self.rooms = 0
        """Bit r is set where some pack has room for r tokens."""
        self._packs: dict[int, list[int]] = {}
        """By room; made as rooms are met, for a plan of many small epochs makes many shelves."""
        self._above = max_tokens + 1

    def put(self, pack: int, room: int) -> None:
        packs = self._packs.setdefault(room, [])
        if not packs:
            self.rooms |= 1 << room
        packs.append(pack)

    def tightest(self, tokens: int) -> int:
        """Return the least room that holds so many tokens, or a number above all rooms."""
        rooms = self.rooms >> tokens
        return tokens + (rooms & -rooms).bit_length() - 1 if rooms else self._above

    def take(self, room: int, place: int = -1) -> int:
        """Remove and return a pack with just so much room."""
        packs = self._packs[room]
        pack = packs.pop(place)
        if not packs:
            self.rooms &= ~(1 << room)
        return pack

    def tightest_with_tiles(
        self, tokens: int, tiles: int, free_tiles: list[int]
    ) -> tuple[int, int]:
        """Return (room, place) of the tightest pack that holds so much, within `MAX_LOOKS`."""
        rooms, room, looks = self.rooms >> tokens, tokens - 1, 0
        while rooms and looks < MAX_LOOKS:
            step = (rooms & -rooms).bit_length()
            room += step
            for place, pack in enumerate(self._packs[room]):
                if free_tiles[pack] >= tiles:
                    return room, place
                looks += 1
            rooms >>= step
        return self._above, -1


class _OpenPacks:
    """Open packs, on shelves by their room for tiles: none, 1, 2 to 3, 4 to 7, and so on.

    A sample with t tiles fits any pack of the shelves above t's own; on its own shelf some packs
    are asked.
    """

    def __init__(self, *, max_tokens: int, max_tiles: int) -> None:
        self.free_tiles: list[int] = []
        """By pack number."""
        self._full = max_tokens, max_tiles
        self._shelves = [_Shelf(max_tokens) for _ in range(max_tiles.bit_length() + 1)]
        self._num_open = 0

    def lay(self, tokens: int, tiles: int) -> int:
        """Lay a sample into a pack and return its number."""
        taken_pack = self._take(tokens, tiles)
        if taken_pack is None:
            if self._num_open == MAX_OPEN_PACKS:
                self._close_fullest()
            taken_pack = len(self.free_tiles), self._full[0]
            self.free_tiles.append(self._full[1])
            self._num_open += 1
        pack, room = taken_pack
        self.free_tiles[pack] -= tiles
        if room > tokens:
            self._shelves[self.free_tiles[pack].bit_length()].put(pack, room - tokens)
        else:
            self._num_open -= 1
        return pack

    def _take(self, tokens: int, tiles: int) -> tuple[int, int] | None:
        """Remove and return (pack, room) of the tightest pack, by tokens, that holds so much."""
        level = tiles.bit_length()
        room, place = self._shelves[level].tightest_with_tiles(tokens, tiles, self.free_tiles)
        shelf = self._shelves[level]
        if tiles or place < 0:  # text fills packs that have no room for tiles first
            for other in self._shelves[level + 1 :]:
                if (other_room := other.tightest(tokens)) < room:
                    room, place, shelf = other_room, -1, other
        return (shelf.take(room, place), room) if room <= self._full[0] else None

    def _close_fullest(self) -> None:
        shelf = min(self._shelves, key=lambda shelf: shelf.tightest(0))
        shelf.take(shelf.tightest(0))
        self._num_open -= 1


def best_fit(
    tokens: Int32[np.ndarray, " sample"],
    tiles: Int32[np.ndarray, " sample"],
    *,
    max_tokens: int,
    max_tiles: int,
) -> Int32[np.ndarray, " sample"]:
    """Return the number of each sample's pack.

    In each window the large samples come first, the largest before all, then the small ones as they
    stand; each goes into the open pack with the least room for tokens that still holds it.

    Args:
        tokens, tiles: sizes, each within the budgets; in random order.
        max_tokens, max_tiles: what a pack may hold.
    """
    pack_of = np.empty(len(tokens), np.int32)
    packs = _OpenPacks(max_tokens=max_tokens, max_tiles=max_tiles)
    for start in range(0, len(tokens), WINDOW_SAMPLES):
        window = slice(start, start + WINDOW_SAMPLES)
        shares = np.maximum(tokens[window] / max_tokens, tiles[window] / max_tiles)
        order = start + np.argsort(np.where(shares > LARGE_SHARE, -shares, 0.0), kind="stable")
        sizes = zip(tokens[order].tolist(), tiles[order].tolist(), strict=True)
        pack_of[order] = [packs.lay(*size) for size in sizes]
    return pack_of
