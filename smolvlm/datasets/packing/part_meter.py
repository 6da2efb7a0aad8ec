"""Some rows of one source, and their measuring: what a worker process is handed and does.

The process is one of this machine or of a Ray cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int32

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Meter
from smolvlm.datasets.rows.conversations import OpenSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some rows of one source."""

    source: int
    rows: Int32[np.ndarray, " row"]
    file: Path | None
    """Where its sizes are kept; None keeps them nowhere."""


class PartMeter:
    """Measures parts; its sources stay open from part to part."""

    def __init__(self, sources: Sequence[OpenSource], prompt: PromptSettings) -> None:
        self._sources = sources
        self._meter = Meter(prompt.encoder(), prompt.media)

    def __call__(self, part: Part) -> pa.Table:
        source = self._sources[part.source]
        rows = part.rows.tolist()
        return self._meter.sizes(source.all_rows(), rows, media_root=source.spec.media_root)
