"""Packs on demand: item i is the i-th pack of the plan, as tensors.

In: measured rows, the plan, an encoder and the tile settings. Out: `Pack`s. A data-loader worker does all of it:
encode the texts, read the pictures, ask the vision cache, decode and cut what it lacks. The same picture twice in a
pack, under whatever name, is decoded and encoded once. Which item holds what depends on the plan alone, so it is the
same for any number of workers.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from smolvlm.datasets.bad_samples import BadSamples, Policy
from smolvlm.datasets.lengths import MeasuredSet
from smolvlm.datasets.packs import Pack
from smolvlm.datasets.plan import Plan, PlannedPack, Rows
from smolvlm.encoding.encode import Encoder
from smolvlm.errors import SampleError
from smolvlm.media.geometry import TileSettings
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Example, ImageRef, Sample, SkippedRow

ReadFeatures = Callable[[Sequence[bytes]], list[Tensor | None]]
"""Asks the vision cache: tile keys in, features or None out."""


class SupervisedDataset(Dataset[Pack]):
    """The packs of a plan."""

    def __init__(
        self,
        measured: MeasuredSet,
        plan: Plan,
        *,
        encoder: Encoder,
        settings: TileSettings,
        order: Sequence[int] | None = None,
        read_features: ReadFeatures | None = None,
        on_bad_sample: Policy = "error",
    ) -> None:
        """
        Args:
            measured: the rows.
            plan: which of them meet in which pack.
            encoder: of the checkpoint.
            settings: how pictures are cut; those the rows were measured with.
            order: pack numbers in the order they are handed out (`deal_to_ranks`); the plan's own by default.
            read_features: the vision cache, where the tower is frozen.
            on_bad_sample: what happens to a picture whose pixels turn out corrupt.
        """
        self.measured = measured
        self.plan = plan
        self.sources = tuple(sorted({conversation.source for conversation in measured.conversations}))
        self._source_numbers = {source: number for number, source in enumerate(self.sources)}
        self._order = tuple(order) if order is not None else tuple(range(len(plan.packs)))
        self._encoder = encoder
        self._settings = settings
        self._read_features = read_features
        self._on_bad_sample: Policy = on_bad_sample

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Pack:
        return self.build(self.plan.packs[self._order[index]])

    def example(self, rows: Rows) -> Example:
        """Return one sample as arrays; no pixel is touched."""
        conversations = tuple(self.measured.conversations[row] for row in rows)
        return self._encoder.encode(
            Sample(conversations=conversations), grids=[self.measured.grids[row] for row in rows]
        )

    def build(self, planned: PlannedPack) -> Pack:
        """Return a planned pack as tensors.

        Raises:
            SampleError: a picture is corrupt or changed since it was measured, under `on_bad_sample: error`.
        """
        loader = _PictureLoader(self._settings, self._read_features)
        bad = BadSamples(policy=self._on_bad_sample, max_fraction=1.0)
        examples: list[Example] = []
        for rows in planned.samples:
            example = self.example(rows)
            if bad.attempt(lambda: loader.add(example), where=example.where[0]) is not None:  # noqa: B023 - called at once
                examples.append(example)
            else:
                bad.skipped += [SkippedRow(where=where, reason=bad.skipped[-1].reason) for where in example.where[1:]]
        bad.settle()
        return self._join(examples, loader, bad)

    def _join(self, examples: Sequence[Example], loader: "_PictureLoader", bad: BadSamples) -> Pack:
        sizes = [len(example.input_ids) for example in examples]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)[: len(examples)]
        pairs = list(zip(examples, offsets, strict=True))
        source_of = [
            np.array([self._source_numbers[source] for source in example.sources])[example.target_conversation]
            for example in examples
        ]
        side = self._settings.tile_side_px
        blank = np.full(0 if examples else 1, self._encoder.tokens.pad)
        tiles = np.stack(loader.tiles) if loader.tiles else np.zeros((0, 3, side, side), np.uint8)
        return Pack(
            input_ids=_joined([blank, *(example.input_ids for example in examples)]),
            position_ids=_joined([blank * 0, *(example.position_ids for example in examples)]),
            scope_end=_joined([blank * 0 + 1, *(example.scope_end + offset for example, offset in pairs)]),
            predict_from=_joined([example.predict_from + offset for example, offset in pairs]),
            target_ids=_joined([example.target_ids for example in examples]),
            target_weights=_joined([example.target_weights for example in examples]).float(),
            target_sources=_joined(source_of),
            tiles=torch.from_numpy(tiles),
            tile_keys=tuple(loader.tile_keys),
            cached_features=torch.stack(loader.cached) if loader.cached else None,
            slot_tiles=loader.slot_tiles(),
            where=tuple(where for example in examples for where in example.where),
            budget_tokens=self.plan.budget.max_tokens,
            skipped=tuple(bad.skipped),
        )


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    if not arrays:
        return torch.zeros(0, dtype=torch.long)
    joined = np.concatenate(arrays)
    return torch.from_numpy(joined if joined.dtype.kind == "f" else joined.astype(np.int64))


class _PictureLoader:
    """Distinct tiles of one pack: either features from the cache or pixels."""

    def __init__(self, settings: TileSettings, read_features: ReadFeatures | None) -> None:
        self.tiles: list[np.ndarray] = []
        self.tile_keys: list[bytes] = []
        self.cached: list[Tensor] = []
        self._settings = settings
        self._settings_key = f"{settings.tile_side_px}/{settings.longest_edge_px}/{settings.image_splitting}".encode()
        self._read_features = read_features
        self._places: dict[bytes, tuple[bool, int]] = {}  # tile key -> (is cached, row)
        self._slots: list[bytes] = []

    def add(self, example: Example) -> bool:
        """Load the pictures of an example and note its slots; all or nothing.

        Raises:
            SampleError: a picture cannot be decoded, or is no longer what it was when its header was read.
        """
        where = example.where[0]
        counts = [0] * len(example.images)
        for ref in example.tiles:
            counts[ref.image] = max(counts[ref.image], ref.tile + 1)
        keys = [self._load(image, count, where=where) for image, count in zip(example.images, counts, strict=True)]
        self._slots += [keys[ref.image][ref.tile] for ref in example.tiles]
        return True

    def _load(self, image: ImageRef, num_tiles: int, *, where: str) -> list[bytes]:
        data = read_bytes(image, where=where)
        picture = content_key(data)
        keys = [tile_key(picture, tile, self._settings_key) for tile in range(num_tiles)]
        if all(key in self._places for key in keys):
            return keys
        found = self._read_features(keys) if self._read_features else [None] * num_tiles
        if all(features is not None for features in found):
            for key, features in zip(keys, found, strict=True):
                self._places[key] = (True, len(self.cached))
                self.cached.append(features)  # pyright: ignore[reportArgumentType] - all were checked
            return keys
        tiles = make_tiles(open_rgb(ImageRef(path=image.path, data=data), where=where), self._settings)
        if len(tiles) != num_tiles:
            raise SampleError(
                f"{image.name} is cut into {len(tiles)} tiles, {num_tiles} were planned",
                where=where,
                fix="the file changed after it was measured; start again",
            )
        for key, tile in zip(keys, tiles, strict=True):
            self._places[key] = (False, len(self.tiles))
            self.tiles.append(tile)
            self.tile_keys.append(key)
        return keys

    def slot_tiles(self) -> Tensor:
        """Return each slot's row: in `tiles`, or counted on from there in `cached`."""
        rows = [row + (len(self.tiles) if is_cached else 0) for is_cached, row in map(self._places.get, self._slots)]  # pyright: ignore[reportGeneralTypeIssues] - every slot was placed
        return torch.tensor(rows, dtype=torch.long)


def tile_key(picture_key: bytes, tile: int, settings_key: bytes) -> bytes:
    """Return the content key of one tile: picture bytes, tile number and everything that shapes its pixels."""
    return blake2b(picture_key + settings_key + tile.to_bytes(4, "little"), digest_size=16).digest()
