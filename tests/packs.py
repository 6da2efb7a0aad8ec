"""Packs written by hand, and packs of a run's own samples."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from smolvlm import api
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.packing.columns import PlannedPack
from smolvlm.datasets.packing.load_times import LoadTimes
from smolvlm.datasets.packing.pack import Pack, Padding
from smolvlm.datasets.packing.plan import sample_size
from smolvlm.inspect.verify import Verification, verify_pack

_NOTHING = {int: 0, Any: None}


def pack_of(**values: Any) -> Pack:
    """Return a pack with these fields, and nothing in all others."""
    return Pack(**{field.name: _nothing(field.type) for field in fields(Pack)} | values)


def _nothing(kind: Any) -> Any:
    if hasattr(kind, "dims"):  # a tensor's type
        return torch.zeros([0 for _ in kind.dims], dtype=getattr(torch, kind.dtypes[0]))
    if kind in (LoadTimes, Padding):
        return kind()
    return _NOTHING.get(kind, () if "tuple" in str(kind) else None)


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedPack:
    """One pack of a run's samples, compared with its conversations alone."""

    pack: Pack
    rows: tuple[int, ...]
    """Numbers of the rows in it."""
    verification: Verification


def verified_pack(config: RunConfig, *, num_samples: int | None = None) -> VerifiedPack:
    """Lay the first samples of a run, or all, into one pack, and verify it as the run would train
    it."""
    inspection = api.inspect(config, start=0, end=num_samples)
    dataset = inspection.dataset
    sizes = [sample_size(rows, dataset.measured.lengths) for rows in inspection.samples]
    pack = dataset.build(
        PlannedPack(
            samples=tuple(inspection.samples),
            num_tokens=sum(tokens for tokens, _ in sizes),
            num_tiles=sum(tiles for _, tiles in sizes),
        )
    )
    rows = tuple(row for rows in inspection.samples for row in rows)
    verification = verify_pack(dataset, pack, rows, config=config, processor=inspection.processor)
    return VerifiedPack(pack=pack, rows=rows, verification=verification)
