"""Features of a frozen vision tower, computed once and kept on disk.

One LMDB file per (tower weights, pixel scaling, compute dtype, stage): its name is their
fingerprint, so features of another tower can never be taken for this one's; with a bound several
(`feature_folder.py`). Keys are tile content keys (picture bytes, cut settings, tile number). LMDB
is crash-safe: a killed writer leaves what was committed (`feature_file.py` says what becomes of a
damaged file). Each entry carries a digest; one that does not match is computed again. The main
process hands features over after each pack and goes on (`feature_writer.py`); loader workers read
before they decode, so that a picture whose features are known is never decoded again. Ranks and
runs share the files: LMDB lets one write at a time, and what another has written since is not
written again.

With tower and connector both frozen the connector's output is kept (tokens x hidden), else the
tower's (patches x width, several times larger).

Break-even: a tile pays for its disk space from its second use on; reading one back costs `read`
below, computing it costs the tower.
"""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import lmdb
import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from smolvlm.model import feature_file
from smolvlm.model.feature_folder import FeatureBound, FeatureFolder
from smolvlm.model.feature_writer import FeatureWriter
from smolvlm.model.vision import tokens_per_tile, tower_modules
from smolvlm.notices import notice
from smolvlm.protocols import VisionLanguageConfig, VisionLanguageModel

Stage = Literal["tower", "connector"]
_DIGEST_BYTES = 8
"""Behind each entry: XXH3 of its key and features. It takes 3 us beside the 22 that reading 144 KiB
takes, on a Xeon of 2023."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureLayout:
    """What one entry holds."""

    stage: Stage
    shape: tuple[int, int]
    """(patches, width) of the tower or (tokens, hidden) of the connector."""
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return self.shape[0] * self.shape[1] * self.dtype.itemsize


_WRITERS: dict[Path, FeatureWriter] = {}
"""What writes each open file; as for the file itself, one a process."""


def _writer(path: Path) -> FeatureWriter | None:
    """Return this process's writer of a file, if it has one."""
    writer = _WRITERS.get(path)
    return writer if writer is not None and writer.is_of_this_process else None


class VisionCache:
    """A table from tile key to features.

    Forked and spawned workers may have it: each opens the file itself.
    """

    def __init__(
        self, path: Path, layout: FeatureLayout, bound: FeatureBound | None = None
    ) -> None:
        """
        Args:
            path: of the first file.
            layout: of its entries.
            bound: of what lies in the file's folder; None is none.
        """
        self.path = path.resolve()
        self.layout = layout
        self._folder = FeatureFolder(self.path, bound)
        _CACHES.add(self)

    def read(self, keys: Sequence[bytes]) -> list[Float[Tensor, "rows width"] | None]:
        """Return the features of each key, None where there are none."""
        writer = _writer(self.path)
        pending = [None if writer is None else writer.pending(key) for key in keys]
        kept = self._kept(keys)
        return [
            found if features is None else features
            for found, features in zip(kept, pending, strict=True)
        ]

    def _kept(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return what the files hold of each key."""
        found: list[Tensor | None] = [None] * len(keys)
        for path in self._files():
            places = [place for place, features in enumerate(found) if features is None]
            if not places:
                break
            for place, features in zip(
                places, self._kept_in(path, [keys[place] for place in places]), strict=True
            ):
                found[place] = features
        return found

    def _kept_in(self, path: Path, keys: Sequence[bytes]) -> list[Tensor | None]:
        """Return what a file holds of each key."""
        environment = feature_file.environment_of(path)
        if environment is None:
            return [None] * len(keys)
        try:
            with environment.begin(buffers=True) as transaction:
                found = [self._decode(key, transaction.get(key)) for key in keys]
        except lmdb.Error as error:
            self._wait()
            feature_file.renew(path, error)
            return [None] * len(keys)
        if any(features is not None for features in found):
            self._folder.use(path)
        return found

    def _files(self) -> tuple[Path, ...]:
        """Return the files to read from, those that were damaged made anew."""
        files = self._folder.files(self._wait)
        for path in files:
            if feature_file.is_damaged(path):
                self._wait()
                feature_file.renew(path)
        return files

    def _wait(self) -> None:
        """Return once nothing is being committed."""
        if (writer := _writer(self.path)) is not None:
            writer.wait()

    def write(self, keys: Iterable[bytes], features: Float[Tensor, "tile rows width"]) -> None:
        """Keep the features of some tiles; committed together, behind the caller's back.

        Args:
            keys: of the tiles.
            features: on any device; not to be changed afterwards.
        """
        if not feature_file.is_written(self._files()[-1]):
            return
        writer = _writer(self.path)
        if writer is None:
            writer = _WRITERS[self.path] = FeatureWriter(self._commit)
        writer.write(tuple(keys), features.detach().to(self.layout.dtype))

    def flush(self) -> None:
        """Return once everything that this process wrote is committed, or cannot be."""
        writer = _writer(self.path)
        if writer is not None:
            writer.flush()

    def _commit(self, keys: Sequence[bytes], features: Float[Tensor, "tile rows width"]) -> None:
        """Write entries together; where that fails, this process writes none from then on."""
        rows = features.view(torch.uint8).flatten(1).numpy()
        new = self._not_kept(keys)
        with self._folder.room(len(new), self.layout.num_bytes) as (path, count):
            environment = feature_file.environment_of(path) if count else None
            if environment is None or not feature_file.is_written(path):
                return
            try:
                with environment.begin(write=True, buffers=True) as transaction:
                    for place in new[:count]:
                        key, row = keys[place], rows[place].data
                        if not self._is_whole(key, transaction.get(key)):
                            transaction.put(key, b"".join((row, _digest(key, row))))
            except lmdb.Error as error:
                feature_file.stop_writing(path, error)

    def _not_kept(self, keys: Sequence[bytes]) -> list[int]:
        """Return the places of the keys that no file has, as far as can be seen."""
        new = list(range(len(keys)))
        for path in self._folder.there():
            environment = feature_file.environment_of(path)
            if environment is None or not new:
                continue
            try:
                with environment.begin(buffers=True) as transaction:
                    new = [
                        place
                        for place in new
                        if not self._is_whole(keys[place], transaction.get(keys[place]))
                    ]
            except lmdb.Error:  # whoever reads it meets the damage too
                continue
        return new

    def _is_whole(self, key: bytes, value: memoryview | None) -> bool:
        """Say whether an entry has the features of its key."""
        size = self.layout.num_bytes
        if value is None or len(value) != size + _DIGEST_BYTES:
            return False
        return _digest(key, value[:size]) == value[size:]

    def count(self) -> int:
        """Return how many tiles are kept; not `__len__`, for an empty cache must not be false."""
        self.flush()
        environments = map(feature_file.environment_of, self._files())
        return sum(each.stat()["entries"] for each in environments if each is not None)

    def _decode(self, key: bytes, value: memoryview | None) -> Tensor | None:
        """Return an entry's features; None where it has none, of another layout or damaged."""
        size = self.layout.num_bytes
        if value is None or len(value) != size + _DIGEST_BYTES:
            return None
        copied = memoryview(bytearray(value))
        features = copied[:size]
        if not self._is_whole(key, copied):
            notice(f"{self.path} has damaged entries, which are computed anew")
            return None
        return torch.frombuffer(features, dtype=self.layout.dtype).view(self.layout.shape)

    def close(self) -> None:
        """Close this process's handle for every cache on the file; the next use opens it again."""
        self.flush()
        _WRITERS.pop(self.path, None)
        self._folder.release()
        for path in self._folder.known():
            feature_file.close(path)


_CACHES: weakref.WeakSet[VisionCache] = weakref.WeakSet()


@contextmanager
def closing_caches() -> Iterator[None]:
    """Close at the end the caches that were made in the meantime.

    An open file takes a terabyte of address space, of which a process has 127: a notebook that
    trains again and again must not keep those of its ended runs.
    """
    before = set(_CACHES)
    try:
        yield
    finally:
        for cache in set(_CACHES) - before:
            cache.close()


def _digest(key: bytes, features: memoryview) -> bytes:
    """Return what stands behind an entry: changed features and those of another key differ."""
    seed = int.from_bytes(key[:8], "little")
    return xxhash.xxh3_64_intdigest(features, seed).to_bytes(_DIGEST_BYTES, "little")


def open_vision_cache(
    directory: Path,
    model: VisionLanguageModel,
    *,
    compute_dtype: str,
    keeps_connector: bool,
    max_gb: float | None = None,
) -> VisionCache:
    """Open the cache that belongs to a model's frozen tower.

    Args:
        directory: where caches lie, one folder a fingerprint.
        model: one of `MODEL_CLASSES`, its `pixel_scaling` set.
        compute_dtype: by torch's name, what the tower computes in, under autocast or by its
            weights: "float32", "bfloat16" or "float16".
        keeps_connector: whether the connector is frozen too, so that its output can be kept.
        max_gb: what all caches of the directory may take of the disk; None is without end.
    """
    stage: Stage = "connector" if keeps_connector else "tower"
    shape = feature_shape(model.config, keeps_connector=keeps_connector)
    layout = FeatureLayout(stage=stage, shape=shape, dtype=getattr(torch, compute_dtype))
    name = fingerprint(model, layout)
    bound = None if max_gb is None else FeatureBound(max_bytes=int(max_gb * 1e9))
    return VisionCache(directory / f"{name}.lmdb", layout, bound)


def feature_shape(config: VisionLanguageConfig, *, keeps_connector: bool) -> tuple[int, int]:
    """Return rows and width of a tile's features, of the connector's or the tower's output."""
    vision = config.vision_config
    if keeps_connector:
        return tokens_per_tile(config), config.text_config.hidden_size
    return (vision.image_size // vision.patch_size) ** 2, vision.hidden_size


def fingerprint(model: VisionLanguageModel, layout: FeatureLayout) -> str:
    """Return a name for everything that a tile's features depend on besides its pixels."""
    digest = blake2b(
        f"{layout}{model.pixel_scaling}{model.config.vision_config.to_json_string()}".encode(),
        digest_size=12,
    )
    tower, connector = tower_modules(model)
    for module in (tower, connector) if layout.stage == "connector" else (tower,):
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
