"""Sizes that axes are rounded up to; that padding changes nothing is shown where packs train."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.packing.buckets import MIN_TOKENS, PackBuckets, rounded_up
from smolvlm.model.attention.sdpa import plan_sdpa
from tests.packs import pack_of


@given(count=st.integers(0, 2**20), multiple=st.sampled_from([1, 64, 128]))
def test_a_size_holds_what_it_is_for_and_an_eighth_more_at_most(count: int, multiple: int) -> None:
    size = rounded_up(count, multiple=multiple)
    assert size % multiple == 0
    assert count <= size < max(count * 9 / 8, count + multiple) or size == count
    assert rounded_up(size, multiple=multiple) == size


def test_a_thousand_counts_have_few_sizes() -> None:
    assert len({rounded_up(count) for count in range(1, 1025)}) == 16 + 6 * 8
    assert len({rounded_up(count, multiple=128) for count in range(1, 4097)}) == 8 + 8 + 8
    assert rounded_up(0, multiple=64) == 0


@pytest.mark.parametrize(
    ("count", "size"), [(1, 128), (127, 128), (128, 256), (4000, 4096), (4095, 4096), (4096, 4224)]
)
def test_a_full_pack_grows_by_one_block(count: int, size: int) -> None:
    tokens = torch.arange(count)
    pack = pack_of(
        input_ids=tokens, position_ids=tokens, scope_end=tokens * 0 + count, budget_tokens=4096
    )
    padded = PackBuckets(pad_id=2, plan_attention=plan_sdpa)(pack)
    assert len(padded.input_ids) == size
    assert size % MIN_TOKENS == 0
    assert padded.padding.num_tokens == size - count
