"""Features of a frozen vision tower, computed once and kept on disk.

One LMDB file per (tower weights, pixel scaling, compute dtype, stage): its name is their fingerprint, so features of
another tower can never be taken for this one's. Keys are tile content keys (picture bytes, cut settings, tile number).
LMDB is crash-safe: a killed writer leaves what was committed. The main process writes after each pack; loader workers
read before they decode, so that a picture whose features are known is never decoded again.

With tower and connector both frozen the connector's output is kept (tokens x hidden), else the tower's (patches x
width, several times larger).

Break-even: a tile pays for its disk space from its second use on; reading one back costs `read` below, computing it
costs the tower.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import lmdb
import torch
from jaxtyping import Float
from torch import Tensor

from smolvlm.model.vision import tower_modules

Stage = Literal["tower", "connector"]
MAX_BYTES = 1 << 40
"""Address space reserved for the map; the file grows only as it fills."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


class VisionCache:
    """A table from tile key to features. Safe to hand to forked or spawned workers: each opens the file itself."""

    def __init__(self, path: Path, layout: FeatureLayout) -> None:
        self.path = path
        self.layout = layout
        self._environment: Any = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "layout": self.layout, "_environment": None, "_process": -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _open(self) -> Any:
        if self._process != os.getpid():  # an environment must not be used across a fork
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(
                str(self.path), map_size=MAX_BYTES, subdir=True, max_readers=512, metasync=False, readahead=False
            )
            self._process = os.getpid()
        return self._environment

    def read(self, keys: Sequence[bytes]) -> list[Float[Tensor, "rows width"] | None]:
        """Return the features of each key, None where there are none."""
        with self._open().begin(buffers=True) as transaction:
            return [self._decode(transaction.get(key)) for key in keys]

    def write(self, keys: Iterable[bytes], features: Float[Tensor, "tile rows width"]) -> None:
        """Keep the features of some tiles; committed together."""
        rows = features.detach().to("cpu", self.layout.dtype).contiguous().view(torch.uint8).flatten(1)
        with self._open().begin(write=True) as transaction:
            for key, row in zip(keys, rows, strict=True):
                transaction.put(key, row.numpy().tobytes())

    def __len__(self) -> int:
        return self._open().stat()["entries"]

    def _decode(self, value: memoryview | None) -> Tensor | None:
        if value is None or len(value) != self.layout.num_bytes:
            return None
        return torch.frombuffer(bytearray(value), dtype=self.layout.dtype).view(self.layout.shape)

    def close(self) -> None:
        """Close this process's handle."""
        if self._environment is not None and self._process == os.getpid():
            self._environment.close()
        self._environment, self._process = None, -1


def open_vision_cache(directory: Path, model: Any, *, compute_dtype: str, keeps_connector: bool) -> VisionCache:
    """Open the cache that belongs to a model's frozen tower.

    Args:
        directory: where caches lie, one folder a fingerprint.
        model: one of `MODEL_CLASSES`, its `pixel_scaling` set.
        compute_dtype: "float32" or "bfloat16": what the tower computes in, under autocast or by its weights.
        keeps_connector: whether the connector is frozen too, so that its output can be kept.
    """
    stage: Stage = "connector" if keeps_connector else "tower"
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    shape = (
        (patches // model.config.scale_factor**2, model.config.text_config.hidden_size)
        if keeps_connector
        else (patches, vision.hidden_size)
    )
    layout = FeatureLayout(stage=stage, shape=shape, dtype=_DTYPES[compute_dtype])
    name = fingerprint(model, layout)
    return VisionCache(directory / f"{name}.lmdb", layout)


def fingerprint(model: Any, layout: FeatureLayout) -> str:
    """Return a name for everything that a tile's features depend on besides its pixels."""
    digest = blake2b(
        f"{layout}{model.pixel_scaling}{model.config.vision_config.to_json_string()}".encode(), digest_size=12
    )
    tower, connector = tower_modules(model)
    for module in (tower, connector) if layout.stage == "connector" else (tower,):
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
