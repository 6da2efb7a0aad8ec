"""Who reads which pack where several ranks hold one together, and that they read the same."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.model.attention.flex_rectangle import plan_flex_rectangle
from smolvlm.model.attention.rectangle import plan_parts_rectangle
from smolvlm.train.context_packs import (
    DifferentPacksError,
    check_same_packs,
    context_cut,
    context_notes,
    repeated_for_groups,
)


@dataclass(frozen=True)
class Settings:
    """Stands for a run file's `train`, and for transformers' arguments."""

    context_ranks: int = 2
    context_exchange: str = "gather"
    process_index: int = 3
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Thing:
    """Stands for a pack's share, or what is known of it."""

    digest: int = 0
    where: tuple[str, ...] = ()


class Group:
    """Stands for a context group: the other rank read these."""

    def __init__(self, *digests: int) -> None:
        self.digests = list(digests)

    def has_same(self, digests: list[int]) -> bool:
        return digests == self.digests


def batch(digest: int, *where: str) -> dict[str, Any]:
    return {"pack": {"context": Thing(digest=digest)}, "info": Thing(where=where)}


def test_the_ranks_of_a_group_get_the_same_packs_one_after_another() -> None:
    """torch's loader gives item i to rank i % ranks."""
    items = repeated_for_groups(np.array([3, 1, 0, 2]), context_ranks=2)
    assert [items[rank::4].tolist() for rank in range(4)] == [[3, 0], [3, 0], [1, 2], [1, 2]]
    assert repeated_for_groups(np.array([3, 1]), context_ranks=1).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("device", "plan"), [("cpu", plan_parts_rectangle), ("cuda", plan_flex_rectangle)]
)
def test_a_rank_knows_its_place_in_its_group(device: str, plan: Any) -> None:
    settings: Any = Settings(context_exchange="ring", device=torch.device(device))
    assert context_cut(settings, settings) == ContextCut(
        rank=1, num_ranks=2, plan_rectangle=plan, goes_round=True
    )
    alone: Any = Settings(context_ranks=1)
    assert context_cut(alone, alone) is None


def test_the_start_says_how_packs_lie() -> None:
    alone: Any = Settings(context_ranks=1)
    gathered: Any = Settings()
    ring: Any = Settings(context_exchange="ring")
    assert context_notes(alone) == []
    assert context_notes(gathered) == [
        "each pack lies on 2 ranks: keys and values are gathered, a layer at a time"
    ]
    assert context_notes(ring) == ["each pack lies on 2 ranks: keys and values go round them"]


def test_ranks_that_read_the_same_go_on() -> None:
    group: Any = Group(5, 6)
    check_same_packs(group, [batch(5, "a:1"), batch(6, "a:2")])


def test_ranks_that_read_different_packs_end_the_run() -> None:
    group: Any = Group(5, 7)
    with pytest.raises(DifferentPacksError) as caught:
        check_same_packs(group, [batch(5, "a:1"), batch(6, "a:2")])
    assert "read different packs: here a:1, a:2" in str(caught.value)
    assert "give all ranks the same files" in str(caught.value)
    with pytest.raises(DifferentPacksError, match="read different packs\n"):
        check_same_packs(group, [batch(6)])
