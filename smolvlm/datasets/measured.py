"""The rows that can be trained on, with all that planning needs; the others counted by their reasons.

In: open sources and the sizes of their rows. Out: a `MeasuredSet`, what was skipped, and a count for each source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32, Int64

from smolvlm.datasets.bad_samples import BadSamples, Policy
from smolvlm.datasets.lengths import MODALITIES, Budget, LengthTable, over_budget
from smolvlm.datasets.rows import Conversations, OpenSource
from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow

_COLUMNS = ("num_tokens", "num_tiles", "num_supervised_tokens", "prefix_tokens", "prefix_tiles")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCount:
    """What became of one source's rows."""

    name: str
    num_rows: int
    """Rows in the file."""
    num_sampled: int
    """Rows that its sampling strategy chose."""
    num_skipped: int
    """Chosen rows left out as bad."""
    repeat: float
    """Times an epoch goes through the rest."""
    num_tokens: int
    """Tokens of the rest, once through."""
    num_tiles: int
    modalities: Mapping[str, int]
    """Modality -> rows of the rest."""
    skip_reasons: Mapping[str, int]
    """Reason -> count, the most frequent first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSet:
    """Rows that can be trained on."""

    conversations: Conversations
    lengths: LengthTable
    skipped: tuple[SkippedRow, ...] = ()
    counts: tuple[SourceCount, ...] = ()


def settle_rows(
    sources: Sequence[OpenSource],
    sizes: Sequence[pa.Table],
    *,
    budget: Budget,
    on_bad_sample: Policy,
    max_bad_fraction: float,
    overrules: bool = False,
) -> MeasuredSet:
    """Keep the rows that can be trained on and fit the budget.

    Args:
        sources: of the mixture.
        sizes: of each source's used rows (`lengths.SIZES`).
        budget: of a pack.
        on_bad_sample: `error` raises for any bad row, `skip` leaves them out; a source's own setting goes before it.
        max_bad_fraction: largest share of a source's used rows that may be skipped, 0 to 1.
        overrules: go before the sources' own settings, and bear a source without one good row.

    Raises:
        SampleError: as the policy says; names the first rows and their reasons.
    """
    skipped: list[SkippedRow] = []
    counts: list[SourceCount] = []
    kept: list[tuple[Int32[np.ndarray, " row"], pa.Table]] = []
    for source, own in zip(sources, sizes, strict=True):
        is_bad, bad = _bad_rows(own, budget, source=source)
        bad.policy = on_bad_sample if overrules else source.spec.on_bad_sample or on_bad_sample
        bad.max_fraction = max_bad_fraction
        bad.settle(needs_a_row=not overrules)
        good = own.filter(pa.array(~is_bad)).drop_columns(["where", "error", "fix"]) if bad.skipped else own
        kept.append((good["row"].to_numpy(), good))
        skipped += bad.skipped
        counts.append(_count(source, good, bad))
    repeats = _repeats(sources, [len(rows) for rows, _ in kept])
    counts = [replace(count, repeat=repeat) for count, repeat in zip(counts, repeats, strict=True)]
    conversations = Conversations(
        [(source.spec, source.table) for source in sources],
        np.repeat(np.arange(len(sources), dtype=np.int16), [len(rows) for rows, _ in kept]),
        _joined([rows for rows, _ in kept], np.int32),
    )
    lengths = length_table([own for _, own in kept], repeats)
    del kept
    pa.default_memory_pool().release_unused()
    return MeasuredSet(conversations=conversations, lengths=lengths, skipped=tuple(skipped), counts=tuple(counts))


def _bad_rows(sizes: pa.Table, budget: Budget, *, source: OpenSource) -> tuple[np.ndarray, BadSamples]:
    """Return which rows cannot be used, and why."""
    failed = sizes["error"].is_valid().to_numpy()
    tokens, tiles = (sizes[name].fill_null(0).to_numpy() for name in ("num_tokens", "num_tiles"))
    is_bad = failed | (tokens > budget.max_tokens) | (tiles > budget.max_tiles)
    bad = BadSamples(num_rows=len(sizes), label=source.spec.label)
    for row in sizes.take(np.flatnonzero(is_bad)).to_pylist():
        where = row["where"] or source.table.where(row["row"])
        error = (
            SampleError(row["error"], where=where, fix=row["fix"])
            if row["error"] is not None
            else over_budget(row, budget, where=where)
        )
        assert error is not None
        bad.note(error, where=where)
    return is_bad, bad


def _count(source: OpenSource, good: pa.Table, bad: BadSamples) -> SourceCount:
    rows_of = np.bincount(good["modality"].to_numpy(), minlength=len(MODALITIES)).tolist()
    return SourceCount(
        name=source.spec.name,
        num_rows=len(source.table),
        num_sampled=len(source.rows),
        num_skipped=len(bad.skipped),
        repeat=1.0,
        num_tokens=int(good["num_tokens"].to_numpy().sum(dtype=np.int64)),
        num_tiles=int(good["num_tiles"].to_numpy().sum(dtype=np.int64)),
        modalities={name: rows for name, rows in zip(MODALITIES, rows_of, strict=True) if rows},
        skip_reasons=dict(bad.reasons().most_common()),
    )


def _repeats(sources: Sequence[OpenSource], num_rows: Sequence[int]) -> list[float]:
    """Return how often an epoch goes through each source.

    With weights, an epoch is as long as it takes for every source to be seen at least once: the source that has most
    rows for its weight once, the others more often.
    """
    weights = [source.spec.weight for source in sources]
    if all(weight is None for weight in weights):
        return [float(source.spec.repeat) for source in sources]
    shares = [float(weight or 0) for weight in weights]
    unit = max(rows / share for rows, share in zip(num_rows, shares, strict=True))
    return [share * unit / rows if rows else 0.0 for rows, share in zip(num_rows, shares, strict=True)]


def length_table(parts: Sequence[pa.Table], repeats: Sequence[float]) -> LengthTable:
    """Join the sizes of several sources to one table; equal prefix keys become equal group numbers."""
    keys: Int64[np.ndarray, " row"] = _joined([part["prefix_key"].to_numpy() for part in parts], np.int64)
    group = np.unique(keys, return_inverse=True)[1] if keys.any() else keys
    columns = {name: _joined([part[name].to_numpy() for part in parts], np.int32) for name in _COLUMNS}
    repeat: Float32[np.ndarray, " row"] = np.repeat(np.array(repeats, np.float32), [len(part) for part in parts])
    return LengthTable(**columns, prefix_group=np.where(keys == 0, -1, group).astype(np.int32), repeats=repeat)


def _joined(parts: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)
