"""Where ranks are, told over a real store; who waits is told by the places alone."""

from datetime import timedelta

import pytest
import torch.distributed as dist

from smolvlm.train.ranks.beats import Phase, Place, RankBeats, RankPlace, waits_for


@pytest.fixture
def ranks() -> list[RankBeats]:
    store = dist.TCPStore("127.0.0.1", 0, 1, True, timedelta(seconds=10), use_libuv=True)
    return [RankBeats(store, rank=rank, num_ranks=4) for rank in range(4)]


def go(rank: RankBeats, step: int, *phases: Phase) -> None:
    for phase in phases:
        rank.reach(phase, step=step)


def test_nobody_is_behind_before_anybody_said_anything(ranks: list[RankBeats]) -> None:
    go(ranks[0], 1, "loading")
    assert ranks[0].behind() == []


def test_the_one_that_still_loads_is_waited_for(ranks: list[RankBeats]) -> None:
    for rank in ranks:
        go(rank, 7, "loading", "forward", "backward")
        go(rank, 8, "loading")
    for rank in (0, 1, 2):
        go(ranks[rank], 8, "forward", "backward")
    assert [str(found) for found in ranks[0].behind()] == ["rank 3 (step 8, loading its packs)"]
    assert ranks[3].behind() == []


def test_the_one_with_fewer_packs_begun_is_behind_in_an_accumulated_step(
    ranks: list[RankBeats],
) -> None:
    for rank in ranks:
        go(rank, 3, "loading", "forward", "backward", "forward", "backward")
    go(ranks[1], 3, "forward")
    assert [found.rank for found in ranks[1].behind()] == [0, 2, 3]
    assert ranks[0].behind() == []
    go(ranks[0], 4, "loading")
    assert [found.rank for found in ranks[0].behind()] == [2, 3], "the least far of those behind"


def test_a_step_before_counts_more_than_any_phase(ranks: list[RankBeats]) -> None:
    go(ranks[0], 5, "loading")
    go(ranks[1], 4, "loading", "forward", "backward")
    ranks[1].reach("saving")
    assert [str(found) for found in ranks[0].behind()] == ["rank 1 (step 4, saving or evaluating)"]


def test_a_process_alone_waits_for_nobody() -> None:
    alone = RankBeats.of_run()
    go(alone, 1, "loading", "forward")
    assert (alone.num_ranks, alone.behind()) == (1, [])


def test_a_store_that_is_gone_stops_nothing() -> None:
    class Gone:
        def set(self, *_: object) -> None:
            raise RuntimeError("Broken pipe")

        def check(self, *_: object) -> bool:
            raise RuntimeError("Broken pipe")

    beats = RankBeats(Gone(), rank=1, num_ranks=2)
    assert beats.behind() == []
    go(beats, 1, "loading", "forward")
    assert beats.behind() == []


def test_many_are_named_in_few_words() -> None:
    place = Place(12, 0, 0)
    found = [RankPlace(rank, place) for rank in (3, 5, 6, 7, 9)]
    assert waits_for(found[:1]) == "waits for rank 3 (step 12, loading its packs)"
    assert waits_for(found[:3]) == "waits for ranks 3, 5, 6 (step 12, loading its packs)"
    assert waits_for(found) == "waits for ranks 3, 5, 6 and 2 more (step 12, loading its packs)"
