"""How often a plan shows its tiles."""

import numpy as np
import pytest

from smolvlm.datasets.packing.lengths import Budget, LengthTable
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.datasets.packing.tile_use import TileUse


def table(tiles: list[int], group: list[int], prefix: list[int]) -> LengthTable:
    count = len(tiles)
    return LengthTable(
        num_tokens=np.full(count, 20, np.int32),
        num_tiles=np.array(tiles, np.int32),
        num_supervised_tokens=np.ones(count, np.int32),
        prefix_tokens=np.array([10 if at >= 0 else 0 for at in group], np.int32),
        prefix_tiles=np.array(prefix, np.int32),
        prefix_group=np.array(group, np.int32),
        repeats=np.ones(count, np.float32),
    )


def use(lengths: LengthTable, *, epochs: float = 1, branches: int = 16, **changes: bool) -> TileUse:
    settings = PlanSettings(
        budget=Budget(max_tokens=100, max_tiles=50),
        packs_per_step=2,
        share_media=True,
        max_branches=branches,
        seed=0,
    )
    plan = plan_training(lengths, settings, num_epochs=epochs)
    return TileUse.of(plan, lengths, **changes)


ALONE = table([3, 4, 0], [-1, -1, -1], [0, 0, 0])
SHARED = table([5, 5, 5, 7], [0, 0, 0, -1], [5, 5, 5, 0])


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_rows_with_pictures_of_their_own_show_each_once_an_epoch(epochs: int) -> None:
    found = use(ALONE, epochs=epochs)
    assert (found.num_distinct, found.num_shown) == (7, (7,) * epochs)
    assert found.num_repeated == 7 * (epochs - 1)


def test_questions_about_one_picture_count_it_once() -> None:
    assert use(SHARED) == TileUse(num_distinct=12, num_shown=(12,))
    assert use(SHARED).num_repeated == 0


def test_a_picture_in_several_trees_is_shown_several_times() -> None:
    assert use(SHARED, branches=1) == TileUse(num_distinct=12, num_shown=(22,))


def test_a_part_of_an_epoch_counts_the_rows_that_it_has() -> None:
    many = table([1] * 40, [-1] * 40, [0] * 40)
    found = use(many, epochs=0.5)
    assert found.num_distinct == found.total_shown < 40
    assert found.num_repeated == 0


def test_a_reference_that_sees_all_rows_first_shows_them_once_more() -> None:
    assert use(ALONE, is_shown_before=True) == TileUse(num_distinct=7, num_shown=(14,))
