"""The distinct tiles of a pack or a batch: features from the vision cache where it has them, else pixels.

In: which picture and tile each image slot shows. Out: tiles to encode, cached features, and a row of either for every
slot. A picture is read, and known, by its bytes: the same picture under two names is decoded and encoded once, and one
whose features are cached is not decoded at all.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smolvlm.errors import SampleError
from smolvlm.media.geometry import TileSettings
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Example, Grid, ImageRef, TileRef

ReadFeatures = Callable[[Sequence[bytes]], list[Tensor | None]]
"""Asks the vision cache: tile keys in, features or None out."""


class PictureLoader:
    """Gathers pictures; one loader a pack or batch."""

    def __init__(self, settings: TileSettings, read_features: ReadFeatures | None) -> None:
        self.tile_keys: list[bytes] = []
        """Content key of each tile still to be encoded."""
        self._settings = settings
        self._settings_key = f"{settings.tile_side_px}/{settings.longest_edge_px}/{settings.image_splitting}".encode()
        self._read_features = read_features
        self._tiles: list[np.ndarray] = []
        self._cached: list[Tensor] = []
        self._places: dict[bytes, tuple[bool, int]] = {}  # tile key -> (is cached, row)
        self._slots: list[bytes] = []

    def add_example(self, example: Example) -> None:
        """Load an example's pictures and note its slots; all or nothing.

        Raises:
            SampleError: a picture cannot be decoded, or is no longer what it was when its header was read.
        """
        counts = [0] * len(example.images)
        for ref in example.tiles:
            counts[ref.image] = max(counts[ref.image], ref.tile + 1)
        self._add(example.images, counts, example.tiles, where=example.where[0])

    def add_prompt(self, images: Sequence[ImageRef], grids: Sequence[Grid], *, where: str) -> None:
        """Load the pictures of one prompt, in prompt order, and note its slots; raises as `add_example`."""
        counts = [grid.num_tiles for grid in grids]
        slots = [TileRef(image=number, tile=tile) for number, count in enumerate(counts) for tile in range(count)]
        self._add(images, counts, slots, where=where)

    def _add(self, images: Sequence[ImageRef], counts: Sequence[int], slots: Sequence[TileRef], *, where: str) -> None:
        num_tiles, num_cached = len(self._tiles), len(self._cached)
        try:
            keys = [self._load(image, count, where=where) for image, count in zip(images, counts, strict=True)]
        except SampleError:
            del self._tiles[num_tiles:], self.tile_keys[num_tiles:], self._cached[num_cached:]
            for key, (is_cached, row) in list(self._places.items()):
                if row >= (num_cached if is_cached else num_tiles):
                    del self._places[key]
            raise
        self._slots += [keys[ref.image][ref.tile] for ref in slots]

    def _load(self, image: ImageRef, num_tiles: int, *, where: str) -> list[bytes]:
        data = read_bytes(image, where=where)
        picture = content_key(data)
        keys = [tile_key(picture, tile, self._settings_key) for tile in range(num_tiles)]
        if all(key in self._places for key in keys):
            return keys
        found = [features for features in self._read(keys) if features is not None]
        if len(found) == num_tiles:
            for key, features in zip(keys, found, strict=True):
                self._places[key] = (True, len(self._cached))
                self._cached.append(features)
            return keys
        tiles = make_tiles(open_rgb(ImageRef(path=image.path, data=data), where=where), self._settings)
        if len(tiles) != num_tiles:
            raise SampleError(
                f"{image.name} is cut into {len(tiles)} tiles, {num_tiles} were planned",
                where=where,
                fix="the file changed after it was measured; start again",
            )
        for key, tile in zip(keys, tiles, strict=True):
            self._places[key] = (False, len(self._tiles))
            self._tiles.append(tile)
            self.tile_keys.append(key)
        return keys

    def _read(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        return self._read_features(keys) if self._read_features is not None else []

    def tiles(self) -> UInt8[Tensor, "tile 3 side side"]:
        """Return the tiles still to be encoded."""
        side = self._settings.tile_side_px
        return torch.from_numpy(np.stack(self._tiles) if self._tiles else np.zeros((0, 3, side, side), np.uint8))

    def cached_features(self) -> Float[Tensor, "cached rows width"] | None:
        """Return the features that the cache had."""
        return torch.stack(self._cached) if self._cached else None

    def slot_tiles(self) -> Int[Tensor, " slot"]:
        """Return each slot's row: in `tiles`, or counted on from there in `cached_features`."""
        places = [self._places[key] for key in self._slots]
        return torch.tensor([row + is_cached * len(self._tiles) for is_cached, row in places], dtype=torch.long)


def tile_key(picture_key: bytes, tile: int, settings_key: bytes) -> bytes:
    """Return the content key of one tile: picture bytes, tile number and everything that shapes its pixels."""
    return blake2b(picture_key + settings_key + tile.to_bytes(4, "little"), digest_size=16).digest()
