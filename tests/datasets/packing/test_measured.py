"""Measured rows settled: how often each source is seen, and which rows begin with the same
pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.config.method import RowKind
from smolvlm.datasets.packing import columns
from smolvlm.datasets.packing.lengths import SIZES, Budget
from smolvlm.datasets.packing.measured import (
    MeasuredSet,
    RowRequirements,
    length_table,
    settle_rows,
)
from smolvlm.datasets.packing.row_digests import DIGESTS
from smolvlm.datasets.rows.conversations import OpenSource, open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import SampleError

BUDGET = Budget(max_tokens=100, max_tiles=4)


def sizes_of(num_rows: int, *, keys: Any = None, **changes: Any) -> pa.Table:
    """Sizes of good rows, as the meter gives them."""
    row = {
        "num_tokens": 10,
        "num_positions": 10,
        "num_tiles": 1,
        "num_supervised_tokens": 2,
        "prefix_tokens": 0,
        "prefix_tiles": 0,
        "prefix_key": 0,
        "modality": 1,
        "is_preference": False,
        **dict.fromkeys(DIGESTS, 0),
        "where": None,
        "error": None,
        "fix": None,
    }
    rows = [{"row": number, **row, **changes} for number in range(num_rows)]
    for own, key in zip(rows, keys if keys is not None else (), strict=False):
        own["prefix_key"] = key
    return pa.Table.from_pylist(rows, schema=SIZES)


@pytest.fixture
def sources(tmp_path: Path) -> Any:
    """Opens sources of so many rows each; `changes` are an entry's further keys."""

    def make(*num_rows: int, **changes: list[Any]) -> tuple[OpenSource, ...]:
        entries = []
        for number, count in enumerate(num_rows):
            path = tmp_path / f"s{number}.jsonl"
            path.write_text('{"question": "q", "answer": "a"}\n' * count)
            entries.append(
                {"json_path": path.name}
                | {name: values[number] for name, values in changes.items()}
            )
        return open_sources(load_mixture(entries, base_dir=tmp_path))

    return make


def settled(
    sources: tuple[OpenSource, ...],
    sizes: list[pa.Table],
    *,
    kind: RowKind | None = None,
    context_tokens: int | None = None,
    **options: Any,
) -> MeasuredSet:
    requirements = RowRequirements(budget=BUDGET, kind=kind, context_tokens=context_tokens)
    chosen: dict[str, Any] = {"on_bad_sample": "error", "max_bad_fraction": 0.5} | options
    return settle_rows(sources, sizes, requirements=requirements, **chosen)


def test_sources_are_seen_in_the_shares_of_their_weights(sources: Any) -> None:
    """30 rows of weight 3 beside 10 of weight 1 are once each; the same weights over 10 and 10 rows
    are 3 times one."""
    for num_rows, weights, wanted in (
        ((30, 10), (3, 1), (1.0, 1.0)),
        ((10, 10), (3, 1), (3.0, 1.0)),
        ((40, 10), (1, 1), (1.0, 4.0)),
        ((8, 2), (1, 4), (1.0, 16.0)),
    ):
        found = settled(
            sources(*num_rows, weight=list(weights)), [sizes_of(count) for count in num_rows]
        )
        assert [own.repeat for own in found.counts] == list(wanted)
        assert found.lengths.repeats.tolist() == [
            share for share, count in zip(wanted, num_rows, strict=True) for _ in range(count)
        ]
        seen = [share * count for share, count in zip(wanted, num_rows, strict=True)]
        assert seen[0] / seen[1] == pytest.approx(weights[0] / weights[1])


def test_repeats_stand_as_they_are_written(sources: Any) -> None:
    found = settled(sources(2, 3, repeat=[2.5, 1]), [sizes_of(2), sizes_of(3)])
    assert found.lengths.repeats.tolist() == [2.5, 2.5, 1, 1, 1]


@settings(deadline=None, max_examples=60)
@given(keys=st.lists(st.integers(-3, 3), min_size=1, max_size=30), window=st.integers(1, 4))
def test_equal_keys_are_one_group_across_any_window(keys: list[int], window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "WINDOW_ROWS", window)
        group = length_table([sizes_of(len(keys), keys=keys)], [1.0]).prefix_group
    numbers = {key: number for number, key in enumerate(sorted(set(keys) - {0}))}
    places = {key: set(group[np.array(keys) == key].tolist()) for key in set(keys)}
    assert places.pop(0, {-1}) == {-1}
    assert all(len(own) == 1 for own in places.values()), "rows of one beginning are of one group"
    assert len(set().union(*places.values())) == len(numbers), "and no others are"
    grouped = [number for number in group.tolist() if number >= 0]
    assert list(dict.fromkeys(grouped)) == list(range(len(numbers))), "by their first rows"


def test_rows_that_do_not_fit_or_are_of_the_other_kind_are_left_out_with_their_reasons(
    sources: Any,
) -> None:
    good, long, wide, other = (
        sizes_of(1),
        sizes_of(1, num_tokens=101),
        sizes_of(1, num_tiles=5),
        sizes_of(1, is_preference=True),
    )
    table = pa.concat_tables([good, long, good, wide, other])
    table = table.set_column(0, "row", pa.array(range(5), SIZES.field("row").type))
    found = settled(
        sources(5), [table], on_bad_sample="skip", max_bad_fraction=0.6, kind="conversation"
    )
    assert [row.where for row in found.skipped] == ["s0.jsonl:2", "s0.jsonl:4", "s0.jsonl:5"]
    assert len(found.lengths) == 2
    assert [found.conversations.where(number) for number in range(2)] == [
        "s0.jsonl:1",
        "s0.jsonl:3",
    ]
    (count,) = found.counts
    assert (count.num_skipped, count.num_tokens, count.num_tiles, dict(count.modalities)) == (
        3,
        20,
        2,
        {"image": 2},
    )
    with pytest.raises(SampleError, match="more than max_bad_fraction"):
        settled(
            sources(5), [table], on_bad_sample="skip", max_bad_fraction=0.5, kind="conversation"
        )


def test_exactly_full_is_not_too_large(sources: Any) -> None:
    found = settled(
        sources(1), [sizes_of(1, num_tokens=100, num_tiles=4, num_positions=50)], context_tokens=50
    )
    assert len(found.lengths) == 1
    with pytest.raises(
        SampleError, match="51 tokens in one conversation, the model's context is 50"
    ):
        settled(sources(1), [sizes_of(1, num_positions=51)], context_tokens=50)


def test_a_sources_own_policy_goes_before_the_runs(sources: Any) -> None:
    own = sources(2, on_bad_sample=["skip"])
    table = pa.concat_tables([sizes_of(1), sizes_of(1, num_tokens=101)])
    table = table.set_column(0, "row", pa.array(range(2), SIZES.field("row").type))
    assert len(settled(own, [table]).skipped) == 1
    with pytest.raises(SampleError, match="101 tokens"):
        settled(sources(2), [table], on_bad_sample="error")


def test_where_rows_are_only_counted_the_refusal_is_kept(sources: Any) -> None:
    table = pa.concat_tables([sizes_of(1), sizes_of(1, num_tokens=101)])
    table = table.set_column(0, "row", pa.array(range(2), SIZES.field("row").type))
    (count,) = settled(sources(2), [table], only_counts=True).counts
    assert count.refusal is not None
    assert "101 tokens" in count.refusal.what
    assert (count.policy, [cause.num_rows for cause in count.causes]) == ("error", [1])
    (count,) = settled(sources(2), [table], only_counts=True, on_bad_sample="skip").counts
    assert (count.policy, count.refusal) == ("skip", None)
