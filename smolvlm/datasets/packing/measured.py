"""The rows that can be trained on, with all that planning needs; others counted by reason.

In: open sources and the sizes of their rows. Out: a `MeasuredSet`, what was skipped, and a count
for each source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int32, Int64

from smolvlm.config.method import METHODS, RowKind
from smolvlm.datasets.packing.columns import trim_memory, windows
from smolvlm.datasets.packing.lengths import (
    MODALITIES,
    SIZES,
    Budget,
    LengthTable,
    over_budget,
    over_context,
)
from smolvlm.datasets.packing.row_digests import DIGESTS, RowDigests
from smolvlm.datasets.rows.causes import Cause
from smolvlm.datasets.rows.conversations import Conversations, OpenSource
from smolvlm.datasets.rows.skipped import BadSamples, Policy
from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow

_COLUMNS = tuple(field.name for field in fields(LengthTable) if field.name in SIZES.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCount:
    """What became of one source's rows."""

    name: str
    num_rows: int
    """Rows in the file."""
    num_filtered: int = 0
    """Of these, left out by the source's filter."""
    empty_files: tuple[str, ...] = ()
    """Files of the source that have no rows."""
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
    causes: tuple[Cause, ...] = ()
    """The same with what is the rows' own taken out, each cause with its first row."""
    policy: Policy = "error"
    """What training does about bad rows: the source's own setting, or else the run's."""
    refusal: SampleError | None = None
    """What training stops with, where it does not bear them; of a preparation alone."""
    unread_keys: tuple[str, ...] = ()
    """Keys of its rows that nothing is made of; empty where nobody asked."""
    left_out_keys: tuple[str, ...] = ()
    """Keys that the source's `not_read` left out of its first rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSet:
    """Rows that can be trained on."""

    conversations: Conversations
    lengths: LengthTable
    digests: RowDigests | None = None
    """What tells the rows from others; None of rows that no file holds."""
    skipped: tuple[SkippedRow, ...] = ()
    counts: tuple[SourceCount, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RowRequirements:
    """What a row must be, to be trained on."""

    budget: Budget
    """Of a pack: no row may be larger."""
    kind: RowKind | None = None
    """What the method learns from; None takes both kinds."""
    context_tokens: int | None = None
    """The longest conversation that the model holds; None is without end."""

    def problem(self, row: Mapping[str, int]) -> SampleError | None:
        """Return what is wrong with a row of these sizes (`lengths.SIZES`), if anything is."""
        return (
            _wrong_kind(row, self.kind)
            or over_context(row, self.context_tokens)
            or over_budget(row, self.budget)
        )


def settle_rows(
    sources: Sequence[OpenSource],
    sizes: list[pa.Table],
    *,
    requirements: RowRequirements,
    on_bad_sample: Policy,
    max_bad_fraction: float,
    only_counts: bool = False,
) -> MeasuredSet:
    """Keep the rows that can be trained on.

    Args:
        sources: of the mixture.
        sizes: of each source's used rows (`lengths.SIZES`); the list is emptied, since of millions
            of rows there should be no second copy while they are planned.
        requirements: what rows must be.
        on_bad_sample: `error` raises for any bad row, `skip` leaves them out; a source's own
            setting goes before it.
        max_bad_fraction: largest share of a source's used rows that may be skipped, 0 to 1.
        only_counts: raise nothing; what would be raised stands in the counts (`refusal`).

    Raises:
        SampleError: as the policy says; names the first rows and their reasons.
    """
    skipped: list[SkippedRow] = []
    counts: list[SourceCount] = []
    kept: list[pa.Table] = []
    for number, source in zip(range(len(sizes)), sources, strict=True):
        is_bad, bad = _bad_rows(sizes[number], requirements, source=source)
        bad.policy = source.spec.on_bad_sample or on_bad_sample
        bad.max_fraction = max_bad_fraction
        refusal = bad.refusal(needs_a_row=True)
        if refusal is not None and not only_counts:
            raise refusal
        kept.append(_good_rows(sizes[number], is_bad) if bad.skipped else sizes[number])
        skipped += bad.skipped
        counts.append(_count(source, kept[-1], bad, refusal))
    sizes.clear()
    repeats = _repeats(sources, [len(table) for table in kept])
    counts = [replace(count, repeat=repeat) for count, repeat in zip(counts, repeats, strict=True)]
    conversations = Conversations(
        [(source.spec, source.table) for source in sources],
        np.repeat(np.arange(len(sources), dtype=np.int16), [len(table) for table in kept]),
        _column(kept, "row", np.int32),
    )
    lengths = length_table(kept, repeats)
    digests = RowDigests(**{name: _column(kept, name, np.int64) for name in DIGESTS})
    kept.clear()
    pa.default_memory_pool().release_unused()
    trim_memory()
    return MeasuredSet(
        conversations=conversations,
        lengths=lengths,
        digests=digests,
        skipped=tuple(skipped),
        counts=tuple(counts),
    )


def _bad_rows(
    sizes: pa.Table, requirements: RowRequirements, *, source: OpenSource
) -> tuple[Bool[np.ndarray, " row"], BadSamples]:
    """Return which rows cannot be used, and why."""
    is_bad = np.zeros(len(sizes), np.bool_)
    bad = BadSamples(num_rows=len(sizes), label=source.spec.label)
    budget, kind = requirements.budget, requirements.kind
    done = 0
    # One by one: Arrow would join all batches before it takes a few rows.
    for batch in sizes.to_batches():
        tokens, tiles = (
            batch[name].fill_null(0).to_numpy() for name in ("num_tokens", "num_tiles")
        )
        bad_here = batch["error"].is_valid().to_numpy(zero_copy_only=False)
        bad_here = bad_here | (tokens > budget.max_tokens) | (tiles > budget.max_tiles)
        if requirements.context_tokens is not None:
            positions = batch["num_positions"].fill_null(0).to_numpy()
            bad_here = bad_here | (positions > requirements.context_tokens)
        if kind is not None:
            is_preference = batch["is_preference"].fill_null(False).to_numpy(zero_copy_only=False)
            bad_here = bad_here | (is_preference != (kind == "preference"))
        is_bad[done : done + len(batch)] = bad_here
        done += len(batch)
        for row in batch.filter(pa.array(bad_here)).to_pylist() if bad_here.any() else ():
            where = row["where"] or source.table.where(row["row"])
            error = (
                SampleError(row["error"], kind=row["kind"], fix=row["fix"])
                if row["error"] is not None
                else requirements.problem(row)
            )
            assert error is not None
            bad.note(error, where=where)
    return is_bad, bad


def _wrong_kind(row: Mapping[str, int], kind: RowKind | None) -> SampleError | None:
    if kind == "conversation" and row["is_preference"]:
        what, row_kind = (
            "a preference row (`chosen` and `rejected`) where answers are learned",
            "preference",
        )
    elif kind == "preference" and not row["is_preference"]:
        what, row_kind = "no preference row: `chosen` and `rejected` are missing", "conversation"
    else:
        return None
    methods = [name for name, section in METHODS.items() if row_kind == section.ROWS]
    fix = f"set `train.method: {' or '.join(methods)}`, or take the source out"
    if row_kind == "preference":
        fix += (
            " (held-out sources are answered, so their rows have a question and an answer under "
            "every method)"
        )
    return SampleError(what, kind="wrong_method", fix=fix)


def _good_rows(sizes: pa.Table, is_bad: Bool[np.ndarray, " row"]) -> pa.Table:
    columns = ["row", *_COLUMNS, "prefix_key", "modality", *DIGESTS]
    return sizes.select(columns).filter(pa.array(~is_bad))


def _count(
    source: OpenSource, good: pa.Table, bad: BadSamples, refusal: SampleError | None
) -> SourceCount:
    rows_of = np.zeros(len(MODALITIES), np.int64)
    num_tokens = num_tiles = 0
    for batch in good.to_batches():
        rows_of += np.bincount(batch["modality"].to_numpy(), minlength=len(MODALITIES))
        num_tokens += int(batch["num_tokens"].to_numpy().sum(dtype=np.int64))
        num_tiles += int(batch["num_tiles"].to_numpy().sum(dtype=np.int64))
    return SourceCount(
        name=source.spec.name,
        num_rows=len(source.table),
        num_filtered=source.num_filtered,
        empty_files=source.table.empty_files,
        num_sampled=len(source.rows),
        num_skipped=len(bad.skipped),
        repeat=1.0,
        num_tokens=num_tokens,
        num_tiles=num_tiles,
        modalities={
            name: rows for name, rows in zip(MODALITIES, rows_of.tolist(), strict=True) if rows
        },
        skip_reasons=dict(bad.reasons().most_common()),
        causes=bad.causes(),
        policy=bad.policy,
        refusal=refusal,
    )


def _repeats(sources: Sequence[OpenSource], num_rows: Sequence[int]) -> list[float]:
    """Return how often an epoch goes through each source.

    With weights, an epoch is as long as it takes for every source to be seen at least once: the
    source that has most rows for its weight once, the others more often.
    """
    weights = [source.spec.weight for source in sources]
    if all(weight is None for weight in weights):
        return [float(source.spec.repeat) for source in sources]
    shares = [float(weight or 0) for weight in weights]
    unit = max(rows / share for rows, share in zip(num_rows, shares, strict=True))
    return [
        share * unit / rows if rows else 0.0 for rows, share in zip(num_rows, shares, strict=True)
    ]


def length_table(parts: Sequence[pa.Table], repeats: Sequence[float]) -> LengthTable:
    """Join the sizes of several sources; equal prefix keys become equal group numbers."""
    group = _groups(_column(parts, "prefix_key", np.int64))  # first, since it takes most on the way
    columns = {name: _column(parts, name, np.int32) for name in _COLUMNS}
    repeat: Float32[np.ndarray, " row"] = np.repeat(
        np.array(repeats, np.float32), [len(part) for part in parts]
    )
    return LengthTable(**columns, prefix_group=group, repeats=repeat)


def _groups(keys: Int64[np.ndarray, " row"]) -> Int32[np.ndarray, " row"]:
    """Number the different keys in the order in which rows first have them; -1 for key 0.

    A key is a digest over where a picture lies, and says only which are equal: the numbers, and
    with them the plan, are the same wherever the folder of pictures is.
    """
    group = np.full(len(keys), -1, np.int32)
    if not keys.any():
        return group
    order = np.argsort(keys)
    last, previous = -1, None
    for window in windows(len(keys)):
        window_keys = keys[order[window]]
        is_new = np.append(window_keys[0] != previous, window_keys[1:] != window_keys[:-1])
        numbers = last + np.cumsum(is_new)
        group[order[window]] = np.where(window_keys == 0, -1, numbers)
        last, previous = numbers[-1], window_keys[-1]
    del order
    return _by_first_row(group, num_groups=int(last) + 1)


def _by_first_row(
    group: Int32[np.ndarray, " row"], *, num_groups: int
) -> Int32[np.ndarray, " row"]:
    """Return the groups numbered by the first row of each; rows of no group stay so."""
    first = np.full(num_groups, len(group), np.int32)
    for window in windows(len(group)):
        rows = np.arange(window.start, window.stop, dtype=np.int32)
        is_grouped = group[window] >= 0
        np.minimum.at(first, group[window][is_grouped], rows[is_grouped])
    renumbered = np.empty(num_groups, np.int32)
    renumbered[np.argsort(first, kind="stable")] = np.arange(num_groups, dtype=np.int32)
    for window in windows(len(group)):
        part = group[window]
        group[window] = np.where(part >= 0, renumbered[part], -1)
    return group


def _column(parts: Sequence[pa.Table], name: str, dtype: type) -> np.ndarray:
    """Return one column of all parts; Arrow would copy it once more on the way."""
    column = np.empty(sum(map(len, parts)), dtype)
    done = 0
    for part in parts:
        for chunk in part[name].chunks:
            column[done : done + len(chunk)] = chunk.to_numpy()
            done += len(chunk)
    return column
