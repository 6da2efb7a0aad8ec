"""Plans: every row once an epoch, budgets kept, the same for everyone, full packs, exact steps."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.packing import columns as planned_packs
from smolvlm.datasets.packing.best_fit import best_fit
from smolvlm.datasets.packing.columns import EMPTY_PACK, PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget, LengthTable
from smolvlm.datasets.packing.plan import (
    Plan,
    PlanSettings,
    deal_to_ranks,
    imbalance,
    plan_epoch,
    plan_training,
    sample_size,
)

TIGHT = Budget(max_tokens=60, max_tiles=12)


def table(
    rows: list[tuple[int, int, int, int, int]], repeats: list[float] | None = None
) -> LengthTable:
    """Rows of (tokens, tiles, prefix tokens, prefix tiles, group)."""
    columns = np.array(rows, np.int32).reshape(len(rows), 5).T
    return LengthTable(
        num_tokens=columns[0],
        num_tiles=columns[1],
        num_supervised_tokens=np.ones(len(rows), np.int32),
        prefix_tokens=columns[2],
        prefix_tiles=columns[3],
        prefix_group=columns[4],
        repeats=np.ones(len(rows), np.float32)
        if repeats is None
        else np.array(repeats, np.float32),
    )


@st.composite
def tables(draw: st.DrawFn) -> LengthTable:
    """Rows that fit `TIGHT` one by one; those of a group have a prefix in common."""
    prefixes = draw(
        st.lists(st.tuples(st.integers(1, 30), st.integers(1, 8)), min_size=1, max_size=4)
    )
    rows = []
    for _ in range(draw(st.integers(0, 24))):
        group = draw(st.integers(-1, len(prefixes) - 1))
        tokens, tiles = prefixes[group] if group >= 0 else (0, 0)
        more_tokens = draw(st.integers(1, TIGHT.max_tokens - tokens))
        more_tiles = draw(st.integers(0, TIGHT.max_tiles - tiles) | st.just(0))
        rows.append((tokens + more_tokens, tiles + more_tiles, tokens, tiles, group))
    return table(rows)


def plan_settings(
    *,
    budget: Budget = TIGHT,
    per_step: int = 2,
    share: bool = True,
    branches: int = 4,
    seed: int = 0,
) -> PlanSettings:
    return PlanSettings(
        budget=budget, packs_per_step=per_step, share_media=share, max_branches=branches, seed=seed
    )


def ragged(num_rows: int, *, seed: int, tiles: tuple[int, ...]) -> LengthTable:
    """A mixture: texts of 10 to 3,000 tokens, and tiles of 64 tokens."""
    random = np.random.default_rng(seed)
    text = np.clip(random.lognormal(4.5, 0.9, num_rows).astype(int), 10, 3000)
    own = random.choice(tiles, num_rows)
    return table(
        [(words + 64 * count, count, 0, 0, -1) for words, count in zip(text, own, strict=True)]
    )


@settings(deadline=None, max_examples=60)
@given(lengths=tables(), share=st.booleans(), branches=st.integers(1, 4), epoch=st.integers(0, 3))
def test_every_row_stands_in_an_epoch_once_and_no_pack_is_too_large(
    lengths: LengthTable, share: bool, branches: int, epoch: int
) -> None:
    chosen = plan_settings(share=share, branches=branches)
    packs = plan_epoch(lengths, chosen, epoch=epoch)
    assert packs == plan_epoch(lengths, chosen, epoch=epoch)
    samples = list(chain.from_iterable(pack.samples for pack in packs))
    assert sorted(chain.from_iterable(samples)) == list(range(len(lengths)))
    for rows in samples:
        groups = {int(lengths.prefix_group[row]) for row in rows}
        assert len(rows) == 1 or (share and len(groups) == 1 and groups != {-1})
        assert len(rows) <= branches
    for pack in packs:
        num_tokens = num_tiles = 0
        for rows in pack.samples:
            num_tokens += int(lengths.prefix_tokens[rows[0]]) if len(rows) > 1 else 0
            num_tiles += int(lengths.prefix_tiles[rows[0]]) if len(rows) > 1 else 0
            for row in rows:
                shared = len(rows) > 1
                num_tokens += int(lengths.num_tokens[row] - shared * lengths.prefix_tokens[row])
                num_tiles += int(lengths.num_tiles[row] - shared * lengths.prefix_tiles[row])
        assert (pack.num_tokens, pack.num_tiles) == (num_tokens, num_tiles)
        assert num_tokens <= TIGHT.max_tokens
        assert num_tiles <= TIGHT.max_tiles


def plain_epoch(
    lengths: LengthTable, chosen: PlanSettings, *, epoch: int
) -> list[tuple[tuple[int, ...], ...]]:
    """What an epoch is, in lists: the reference that columns and windows are held to."""
    random = np.random.default_rng([chosen.seed, epoch])
    repeats, samples = lengths.repeats, []
    for number in range(int(np.ceil(repeats.max(initial=0)))):
        rows = [row for row in range(len(lengths)) if repeats[row] >= number + 1]
        for partial in sorted({own for own in repeats if number < own < number + 1}):
            own = random.permutation(np.flatnonzero(repeats == partial))
            rows += own[: round(float(partial - number) * len(own))].tolist()
        samples += plain_trees(
            random.permutation(np.array(rows, np.int64)).tolist(), lengths, chosen
        )
    samples = [samples[place] for place in random.permutation(len(samples))]
    sizes = np.array([sample_size(rows, lengths) for rows in samples], np.int32).reshape(-1, 2)
    budget = chosen.budget
    pack_of = best_fit(
        sizes[:, 0], sizes[:, 1], max_tokens=budget.max_tokens, max_tiles=budget.max_tiles
    )
    packs = [[] for _ in range(pack_of.max(initial=-1) + 1)]
    for rows, pack in zip(samples, pack_of, strict=True):
        packs[pack].append(rows)
    return [tuple(packs[place]) for place in random.permutation(len(packs))]


def plain_trees(
    order: list[int], lengths: LengthTable, chosen: PlanSettings
) -> list[tuple[int, ...]]:
    """Rows alone, then each group: cut every few rows, or, where such a piece is too large, as long
    as rows fit."""

    def fits(rows: list[int]) -> bool:
        tokens, tiles = sample_size(tuple(rows), lengths)
        return tokens <= chosen.budget.max_tokens and tiles <= chosen.budget.max_tiles

    most = chosen.max_branches if chosen.share_media else 1
    group = lengths.prefix_group
    if most == 1:
        return [(row,) for row in order]
    samples = [[row] for row in order if group[row] < 0]
    for number in sorted({int(group[row]) for row in order} - {-1}):
        own = [row for row in order if group[row] == number]
        pieces = [own[start : start + most] for start in range(0, len(own), most)]
        if not all(map(fits, pieces)):
            pieces = [own[:1]]
            for row in own[1:]:
                if len(pieces[-1]) < most and fits([*pieces[-1], row]):
                    pieces[-1].append(row)
                else:
                    pieces.append([row])
        samples += pieces
    return [tuple(rows) for rows in samples]


@settings(deadline=None, max_examples=80)
@given(
    lengths=tables(),
    draws=st.integers(0, 99),
    share=st.booleans(),
    branches=st.integers(1, 4),
    epoch=st.integers(0, 2),
    window=st.sampled_from((1, 3, 1 << 17)),
)
def test_plans_are_the_plain_ones_to_the_last_row(
    lengths: LengthTable, draws: int, share: bool, branches: int, epoch: int, window: int
) -> None:
    repeats = np.random.default_rng(draws).choice(
        np.array([0.0, 0.3, 1.0, 2.0, 2.25], np.float32), len(lengths)
    )
    lengths = replace(lengths, repeats=repeats)
    chosen = plan_settings(share=share, branches=branches, seed=draws)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned_packs, "WINDOW_ROWS", window)
        packs = plan_epoch(lengths, chosen, epoch=epoch)
    assert [pack.samples for pack in packs] == plain_epoch(lengths, chosen, epoch=epoch)


@pytest.mark.parametrize("per_group", [4, 900])
def test_a_long_plan_is_the_plain_one(per_group: int) -> None:
    num_rows = 3000
    random = np.random.default_rng(per_group)
    group = random.integers(-2, num_rows // per_group, num_rows).clip(-1)
    own, prefix = random.integers(1, 400, num_rows), np.where(group < 0, 0, 64 + group % 7)
    rows = [
        (words + before, int(before > 0) + words % 2, before, int(before > 0), number)
        for words, before, number in zip(own.tolist(), prefix.tolist(), group.tolist(), strict=True)
    ]
    lengths = table(rows, random.choice([1.0, 1.5], num_rows).tolist())
    chosen = plan_settings(budget=Budget(max_tokens=1024, max_tiles=8), branches=6, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planned_packs, "WINDOW_ROWS", 500)
        packs = plan_epoch(lengths, chosen, epoch=1)
    assert [pack.samples for pack in packs] == plain_epoch(lengths, chosen, epoch=1)


@pytest.mark.parametrize("has_pictures", [False, True])
def test_planning_takes_few_bytes_a_row(
    has_pictures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planned_packs, "WINDOW_ROWS", 1024)
    num_rows = 60_000
    random = np.random.default_rng(0)
    sizes = random.integers(10, 120, num_rows).astype(np.int32)
    no_group, groups = (
        np.full(num_rows, -1, np.int32),
        random.integers(0, num_rows // 5, num_rows).astype(np.int32),
    )
    lengths = LengthTable(
        num_tokens=sizes,
        num_tiles=np.full(num_rows, has_pictures, np.int32),
        num_supervised_tokens=sizes,
        prefix_tokens=np.full(num_rows, 9 * has_pictures, np.int32),
        prefix_tiles=np.full(num_rows, has_pictures, np.int32),
        prefix_group=groups if has_pictures else no_group,
        repeats=np.ones(num_rows, np.float32),
    )
    chosen = plan_settings(budget=Budget(max_tokens=512, max_tiles=64))
    plan_training(table([(1, 0, 0, 0, -1)]), chosen)  # what a first call imports does not count
    tracemalloc.start()
    plan = plan_training(lengths, chosen)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.packs.num_rows == num_rows
    assert kept < 12 * num_rows
    assert peak < 40 * num_rows + 500_000, f"{peak / num_rows:.1f} bytes a row"


def test_rows_of_a_group_become_trees_as_large_as_may_be() -> None:
    lengths = table([(12, 1, 10, 1, 0)] * 8 + [(12, 1, 10, 1, 1)] * 3 + [(5, 0, 0, 0, -1)] * 4)
    sizes = Counter(
        len(rows) for pack in plan_epoch(lengths, plan_settings(), epoch=0) for rows in pack.samples
    )
    assert sizes == {4: 2, 3: 1, 1: 4}
    assert sample_size((0, 1, 2), lengths) == (16, 1)
    assert sample_size((11,), lengths) == (5, 0)


def test_a_tree_ends_where_the_budget_does() -> None:
    lengths = table([(40, 1, 20, 1, 0)] * 5)
    sizes = [
        len(rows) for pack in plan_epoch(lengths, plan_settings(), epoch=0) for rows in pack.samples
    ]
    assert sorted(sizes) == [1, 2, 2]


def test_seed_and_epoch_draw_the_order() -> None:
    lengths = ragged(60, seed=1, tiles=(0, 1))
    chosen = plan_settings(budget=Budget(max_tokens=4096, max_tiles=64))
    first = plan_epoch(lengths, chosen, epoch=0)
    assert first == plan_epoch(lengths, chosen, epoch=0)
    assert first != plan_epoch(lengths, chosen, epoch=1)
    other_seed = plan_settings(budget=chosen.budget, seed=1)
    assert first != plan_epoch(lengths, other_seed, epoch=0)


@settings(deadline=None, max_examples=40)
@given(
    lengths=tables(),
    per_step=st.integers(1, 4),
    num_epochs=st.sampled_from((0.3, 1.0, 1.5, 2.0, 3.25)),
)
def test_steps_are_exact(lengths: LengthTable, per_step: int, num_epochs: float) -> None:
    chosen = plan_settings(per_step=per_step)
    plan = plan_training(lengths, chosen, num_epochs=num_epochs)
    if not len(lengths):
        assert (plan.num_steps, plan.epoch_ends, plan.epoch_at(0)) == (0, (), 0.0)
        return
    uncut = [
        -(-len(plan_epoch(lengths, chosen, epoch=epoch)) // per_step)
        for epoch in range(int(np.ceil(num_epochs)))
    ]
    steps = list(uncut)
    if num_epochs % 1:
        steps[-1] = max(1, round((num_epochs % 1) * uncut[-1]))
    assert plan.num_steps * per_step == len(plan.packs)
    assert plan.epoch_ends == tuple(np.cumsum(steps).tolist())
    begin = 0
    for end in plan.epoch_ends:
        is_filled = [bool(pack.samples) for pack in plan.packs[begin * per_step : end * per_step]]
        assert is_filled == sorted(is_filled, reverse=True)  # empty packs only at the end,
        assert is_filled.count(False) < per_step  # and only in its last step
        begin = end
    whole_steps = sum(uncut[: int(num_epochs)])
    assert (
        plan.packs[: whole_steps * per_step]
        == plan_training(lengths, chosen, num_epochs=float(int(num_epochs))).packs
    )


@settings(deadline=None, max_examples=25)
@given(lengths=tables().filter(len), max_steps=st.integers(1, 30), per_step=st.integers(1, 3))
def test_max_steps_go_through_as_many_epochs_as_they_need(
    lengths: LengthTable, max_steps: int, per_step: int
) -> None:
    chosen = plan_settings(per_step=per_step)
    plan = plan_training(lengths, chosen, num_epochs=0.1, max_steps=max_steps)
    assert plan.num_steps == max_steps == plan.epoch_ends[-1]
    longer = plan_training(lengths, chosen, num_epochs=float(len(plan.epoch_ends)))
    assert plan.packs == longer.packs[: len(plan.packs)]
    assert plan.epoch_at(max_steps) == pytest.approx(longer.epoch_at(max_steps))


def test_the_epoch_of_a_step() -> None:
    lengths = table([(60, 0, 0, 0, -1)] * 7)
    plan = plan_training(lengths, plan_settings(), num_epochs=2.5)  # 4 steps an epoch
    assert plan.epoch_ends == (4, 8, 10)
    assert [plan.epoch_at(step) for step in (0, 1, 4, 6, 8, 9, 10, 99)] == [
        0,
        0.25,
        1,
        1.5,
        2,
        2.25,
        2.5,
        2.5,
    ]
    assert plan.packs[7] == plan.packs[15] == EMPTY_PACK
    assert plan_training(lengths, plan_settings(), max_steps=6).epoch_at(6) == 1.5


def test_full_packs() -> None:
    budget = Budget(max_tokens=4096, max_tiles=64)
    plan = plan_training(
        ragged(3000, seed=1, tiles=(0, 0, 1, 1, 2, 5, 13, 17)), plan_settings(budget=budget)
    )
    assert plan.token_fill > 0.97
    used = [pack for pack in plan.packs if pack.samples]
    assert plan.token_fill == pytest.approx(np.mean([pack.num_tokens for pack in used]) / 4096)
    assert plan.tile_fill == pytest.approx(np.mean([pack.num_tiles for pack in used]) / 64)


def test_a_pack_mixes_sizes() -> None:
    """A pack of rows of nearly equal length would bias its step."""
    random = np.random.default_rng(0)
    lengths = table([(int(size), 0, 0, 0, -1) for size in random.integers(20, 400, 5000)])
    packs = plan_epoch(lengths, plan_settings(budget=Budget(max_tokens=4096, max_tiles=1)), epoch=0)
    within = [
        lengths.num_tokens[[row for rows in pack.samples for row in rows]].std() for pack in packs
    ]
    assert np.median(within) > 0.9 * lengths.num_tokens.std()


@pytest.mark.parametrize("max_tiles", [20, 32, 48])
def test_full_packs_where_tiles_bind(max_tiles: int) -> None:
    """Packs without room for tiles must not keep those with room from being found."""
    lengths = ragged(3000, seed=2, tiles=(0, 0, 1, 1, 2, 5, 10))
    budget = Budget(max_tokens=4096, max_tiles=max_tiles)
    packs = plan_epoch(lengths, plan_settings(budget=budget), epoch=0)
    least = max(
        lengths.num_tokens.sum() / budget.max_tokens, lengths.num_tiles.sum() / budget.max_tiles
    )
    assert len(packs) < 1.04 * least + 1


def test_rows_beyond_one_window_and_more_packs_than_stay_open() -> None:
    lengths = ragged(20_000, seed=3, tiles=(0, 1, 13))
    plan = plan_training(lengths, plan_settings(budget=Budget(max_tokens=4096, max_tiles=64)))
    rows = [row for pack in plan.packs for members in pack.samples for row in members]
    assert np.array_equal(np.sort(rows), np.arange(20_000))
    assert all(pack.num_tokens <= 4096 and pack.num_tiles <= 64 for pack in plan.packs)
    assert plan.token_fill > 0.99


@settings(deadline=None, max_examples=60)
@given(
    costs=st.lists(st.tuples(st.integers(0, 4096), st.integers(0, 64)), min_size=1, max_size=24),
    num_ranks=st.sampled_from((1, 2, 4)),
    turns=st.integers(1, 3),
)
def test_each_steps_packs_are_dealt_evenly(
    costs: list[tuple[int, int]], num_ranks: int, turns: int
) -> None:
    per_step = num_ranks * turns
    costs += [(0, 0)] * (-len(costs) % per_step)
    packs = tuple(
        PlannedPack(samples=((0,),), num_tokens=tokens, num_tiles=tiles) for tokens, tiles in costs
    )
    plan = Plan(
        packs=PlannedPacks.of(packs),
        packs_per_step=per_step,
        epoch_ends=(len(packs) // per_step,),
        budget=TIGHT,
    )
    order = deal_to_ranks(plan, num_ranks=num_ranks, cost_per_token=1.0, cost_per_tile=50.0)
    assert len(order) == len(packs)
    waiting = imbalance(plan, order, num_ranks=num_ranks, costs=(1.0, 50.0))
    assert 0 <= waiting < 1
    assert num_ranks > 1 or waiting == 0
    for step in range(plan.num_steps):
        own = order[step * per_step : (step + 1) * per_step]
        assert sorted(own) == list(range(step * per_step, (step + 1) * per_step))
        loads = [
            sum(costs[n][0] + 50 * costs[n][1] for n in own[rank::num_ranks])
            for rank in range(num_ranks)
        ]
        dearest = max(costs[number][0] + 50 * costs[number][1] for number in own)
        assert max(loads) <= min(loads) + turns * dearest


def test_dear_packs_go_to_different_ranks() -> None:
    packs = tuple(
        PlannedPack(samples=((0,),), num_tokens=size, num_tiles=0) for size in (1, 2, 3, 4)
    )
    plan = Plan(packs=PlannedPacks.of(packs), packs_per_step=4, epoch_ends=(1,), budget=TIGHT)
    assert deal_to_ranks(plan, num_ranks=1, cost_per_token=1.0, cost_per_tile=0.0).tolist() == [
        0,
        1,
        2,
        3,
    ]
    order = deal_to_ranks(plan, num_ranks=2, cost_per_token=1.0, cost_per_tile=0.0)
    assert [{int(order[place]) for place in range(rank, 4, 2)} for rank in range(2)] == [
        {0, 3},
        {1, 2},
    ]
    assert imbalance(plan, order, num_ranks=2, costs=(1.0, 0.0)) == 0
    assert imbalance(plan, np.arange(4), num_ranks=2, costs=(1.0, 0.0)) == pytest.approx(
        1 - 10 / (2 * 6)
    )


def test_tiles_count_in_what_a_rank_has_to_do() -> None:
    """By tokens alone both packs with pictures would go to one rank."""
    sizes = ((9, 0), (8, 10), (2, 10), (1, 0))
    packs = tuple(
        PlannedPack(samples=((0,),), num_tokens=tokens, num_tiles=tiles) for tokens, tiles in sizes
    )
    plan = Plan(packs=PlannedPacks.of(packs), packs_per_step=4, epoch_ends=(1,), budget=TIGHT)
    by_tokens = deal_to_ranks(plan, num_ranks=2, cost_per_token=1.0, cost_per_tile=0.0)
    assert {int(number) for number in by_tokens[1::2]} == {1, 2}
    order = deal_to_ranks(plan, num_ranks=2, cost_per_token=1.0, cost_per_tile=5.0)
    assert order.tolist() == [1, 2, 3, 0]
    assert imbalance(plan, order, num_ranks=2, costs=(1.0, 5.0)) == pytest.approx(
        1 - 120 / (2 * 61)
    )
    assert imbalance(plan, by_tokens, num_ranks=2, costs=(1.0, 5.0)) == pytest.approx(
        1 - 120 / (2 * 110)
    )


def test_repeated_rows_come_as_often_as_asked_and_others_each_epoch() -> None:
    lengths = table(
        [(12, 1, 10, 1, 0)] * 8 + [(5, 0, 0, 0, -1)] * 40, [1.0] * 4 + [2.0] * 4 + [0.25] * 40
    )
    drawn = []
    for epoch in range(3):
        samples = [
            rows
            for pack in plan_epoch(lengths, plan_settings(), epoch=epoch)
            for rows in pack.samples
        ]
        assert all(len(set(rows)) == len(rows) for rows in samples), (
            "a row and its copy never share a tree"
        )
        counts = Counter(chain.from_iterable(samples))
        assert [counts[row] for row in range(8)] == [1] * 4 + [2] * 4
        drawn.append({row for row in counts if row >= 8})
        assert len(drawn[-1]) == 10
        assert all(counts[row] == 1 for row in drawn[-1])
    assert drawn[0] != drawn[1] != drawn[2]


def test_packs_are_a_sequence() -> None:
    packs = [PlannedPack(samples=((3, 1), (2,)), num_tokens=7, num_tiles=2), EMPTY_PACK]
    columns = PlannedPacks.of(packs)
    assert list(columns) == packs
    assert columns[-1] == EMPTY_PACK
    assert list(columns[::-1]) == packs[::-1]
    assert list(columns.reordered(np.array([-1, 0, 0]))) == [EMPTY_PACK, packs[0], packs[0]]
    assert list(PlannedPacks.joined([columns, columns])) == packs * 2
    assert columns == PlannedPacks.of(packs) != PlannedPacks.of(packs[:1])
    assert (columns.num_tokens.tolist(), columns.num_tiles.tolist(), columns.num_rows) == (
        [7, 0],
        [2, 0],
        3,
    )
    with pytest.raises(IndexError):
        columns[2]


@pytest.mark.parametrize(
    "samples",
    [
        [[(3, 1), (2,)], []],
        [[(3,), (1, 2)], []],  # other trees of the same rows
        [[(3, 1, 2)], []],
        [[(3, 1)], [(2,)]],  # other packs of the same samples
        [[], [(3, 1), (2,)]],
        [[(1, 3), (2,)], []],  # another order of the branches
        [[(3, 1), (4,)], []],
        [[(3, 1), (2,)], [], []],
    ],
)
def test_packs_are_equal_only_where_the_same_rows_make_the_same_trees_in_the_same_packs(
    samples: list,
) -> None:
    """A resumed run goes by the digest, and all that is said above of equal plans by this
    equality."""
    first = PlannedPacks.of(
        [PlannedPack(samples=((3, 1), (2,)), num_tokens=7, num_tiles=2), EMPTY_PACK]
    )
    other = PlannedPacks.of(
        [PlannedPack(samples=tuple(own), num_tokens=7, num_tiles=2) for own in samples]
    )
    is_same = samples == [[(3, 1), (2,)], []]
    assert (first == other) == (first.digest() == other.digest()) == is_same
