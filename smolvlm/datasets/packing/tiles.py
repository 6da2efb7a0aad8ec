"""The distinct tiles of a pack or a batch: features that the vision cache has, else pixels.

In: which tiles of which picture or clip each image slot shows. Out: tiles to encode, cached
features, and the rows of either for every slot. A picture is read, and known, by its bytes, a frame
by its clip's bytes and its number: the same picture under two names is decoded and encoded once,
and one whose features are cached is not decoded at all.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.datasets.packing.load_times import LoadTimes
from smolvlm.datasets.packing.row_digests import names_file
from smolvlm.errors import SampleError
from smolvlm.media.medium import open_medium
from smolvlm.media.settings import MediaSettings
from smolvlm.records import Example, Layout, Media, TileRef

ReadFeatures = Callable[[Sequence[bytes]], list[Tensor | None]]
"""Asks the vision cache: tile keys in, features or None out."""


class TileLoader:
    """Gathers tiles; one loader a pack or batch."""

    def __init__(self, settings: MediaSettings, read_features: ReadFeatures | None) -> None:
        self.tile_keys: list[bytes] = []
        """Content key of each tile still to be encoded."""
        self.times = LoadTimes()
        self._medium_keys: dict[bytes, bytes] = {}  # media identity -> content key
        self._settings = settings
        self._read_features = read_features
        self._tiles: list[np.ndarray] = []
        self._cached: list[Tensor] = []
        self._places: dict[bytes, tuple[bool, int]] = {}  # tile key -> (is cached, row)
        self._shown: list[bytes] = []
        self._slot_sizes: list[int] = []

    def add_example(self, example: Example) -> None:
        """Load an example's media and note its slots; all or nothing.

        Raises:
            SampleError: a picture or a frame cannot be decoded, or is no longer what it was when it
                was measured.
        """
        self._add(example.media, example.layouts, example.tiles)
        self._slot_sizes += example.slot_sizes

    def add_prompt(self, media: Sequence[Media], layouts: Sequence[Layout]) -> None:
        """Load one prompt's media, in order, and note its slots; raises as `add_example`."""
        shown = [
            TileRef(medium=number, tile=tile)
            for number, layout in enumerate(layouts)
            for tile in range(layout.num_tiles)
        ]
        self._add(media, layouts, shown)
        self._slot_sizes += [len(tiles) for layout in layouts for tiles in layout.slots]

    def _add(
        self, media: Sequence[Media], layouts: Sequence[Layout], shown: Sequence[TileRef]
    ) -> None:
        num_tiles, num_cached = len(self._tiles), len(self._cached)
        try:
            keys = [
                self._load(medium, layout) for medium, layout in zip(media, layouts, strict=True)
            ]
        except SampleError:
            del self._tiles[num_tiles:], self.tile_keys[num_tiles:], self._cached[num_cached:]
            for key, (is_cached, row) in list(self._places.items()):
                if row >= (num_cached if is_cached else num_tiles):
                    del self._places[key]
            raise
        self._shown += [keys[ref.medium][ref.tile] for ref in shown]

    def _load(self, medium: Media, layout: Layout) -> Sequence[bytes]:
        with self.times.timed("reading_s"):
            opened = open_medium(medium, layout, self._settings)
        if names_file(medium):
            self._medium_keys[media_identity(medium)] = opened.key
        new = [key for key in dict.fromkeys(opened.tile_keys) if key not in self._places]
        if not new:
            return opened.tile_keys
        with self.times.timed("features_s"):
            cached = self._read_features(new) if self._read_features is not None else []
        if len(cached) == len(new) and all(features is not None for features in cached):
            for key, features in zip(new, cached, strict=True):
                assert features is not None
                self._places[key] = (True, len(self._cached))
                self._cached.append(features)
            return opened.tile_keys
        with self.times.timed("decoding_s"):
            tiles = opened.tiles()
        for key, tile in zip(opened.tile_keys, tiles, strict=True):
            if key in self._places:  # of two parts of one clip that overlap, a frame stands once
                continue
            self._places[key] = (False, len(self._tiles))
            self._tiles.append(tile)
            self.tile_keys.append(key)
        return opened.tile_keys

    def medium_key(self, medium: Media) -> bytes:
        """Return the content key of a medium that names a file and was read."""
        return self._medium_keys[media_identity(medium)]

    def tiles(self) -> UInt8[Tensor, "tile 3 side side"]:
        """Return the tiles still to be encoded."""
        side = self._settings.pictures.tile_side_px
        return torch.from_numpy(
            np.stack(self._tiles) if self._tiles else np.zeros((0, 3, side, side), np.uint8)
        )

    def cached_features(self) -> Float[Tensor, "cached rows width"] | None:
        """Return the features that the cache had."""
        return torch.stack(self._cached) if self._cached else None

    def slot_tiles(self) -> Int[Tensor, " shown"]:
        """Return the slots' rows in `tiles` or, counted on from there, in `cached_features`."""
        places = [self._places[key] for key in self._shown]
        return torch.tensor(
            [row + is_cached * len(self._tiles) for is_cached, row in places], dtype=torch.long
        )

    def slot_sizes(self) -> Int[Tensor, " slot"] | None:
        """Return how many of `slot_tiles` belong to each slot; None where each has one."""
        is_averaged = any(size > 1 for size in self._slot_sizes)
        return torch.tensor(self._slot_sizes, dtype=torch.long) if is_averaged else None
