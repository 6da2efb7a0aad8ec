"""The sizes and grids of `smolvlm.media.tile_grid`: examples, laws, and the text of refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.errors import ConfigError
from smolvlm.media.tile_grid import (
    MAX_TILES_PER_SIDE,
    TileSettings,
    check_tile_settings,
    grid_for,
    plan_resize,
)
from smolvlm.records import Grid

RELEASED = TileSettings(tile_side_px=512, longest_edge_px=2048, image_splitting=True)
UNSPLIT = TileSettings(tile_side_px=512, longest_edge_px=2048, image_splitting=False)
sides = st.integers(min_value=1, max_value=20_000)


@st.composite
def legal_settings(draw):
    side = draw(st.sampled_from([14, 32, 33, 364, 384, 512]))
    return TileSettings(
        tile_side_px=side,
        longest_edge_px=side * draw(st.integers(1, MAX_TILES_PER_SIDE)),
        image_splitting=draw(st.booleans()),
    )


@pytest.mark.parametrize(
    ("size", "longest_edge_size", "cut_size", "grid"),
    [
        (
            (1200, 800),
            (2048, 1366),
            (2048, 1536),
            Grid(rows=3, columns=4),
        ),  # 1365 is odd and becomes 1366
        ((800, 1200), (1366, 2048), (1536, 2048), Grid(rows=4, columns=3)),
        ((1200, 900), (2048, 1536), (2048, 1536), Grid(rows=3, columns=4)),
        ((1, 1), (2048, 2048), (2048, 2048), Grid(rows=4, columns=4)),
        ((4000, 13), (2048, 6), (2048, 512), Grid(rows=1, columns=4)),
        ((2000, 1), (2048, 2), (2048, 512), Grid(rows=1, columns=4)),  # 1.024 -> 1 -> 2
        ((1, 100_000), (1, 2048), (512, 2048), Grid(rows=4, columns=1)),  # 0.02 -> 0 -> 1
    ],
)
def test_sizes_are_truncated_made_even_and_stretched_to_whole_tiles(
    size, longest_edge_size, cut_size, grid
):
    plan = plan_resize(*size, RELEASED)
    assert plan.longest_edge_size == longest_edge_size
    assert plan.cut_size == cut_size
    assert plan.global_size == (512, 512)
    assert plan.grid == grid == grid_for(*size, RELEASED)


@pytest.mark.parametrize("size", [(1200, 800), (1, 1), (4000, 13), (512, 512)])
def test_an_overview_is_one_tile_twice_whatever_the_size(size):
    settings = TileSettings(tile_side_px=512, longest_edge_px=512, image_splitting="overview")
    check_tile_settings(settings)
    plan = plan_resize(*size, settings)
    assert max(plan.longest_edge_size) == 512
    assert plan.cut_size == plan.global_size == (512, 512)
    assert plan.grid == Grid(rows=1, columns=1)
    assert plan.grid.num_tiles == 2


def test_an_overview_of_more_than_one_tile_is_refused():
    settings = TileSettings(tile_side_px=512, longest_edge_px=1024, image_splitting="overview")
    with pytest.raises(ConfigError, match="shows pictures as one tile of 512 px"):
        check_tile_settings(settings)


def test_without_splitting_the_picture_still_passes_through_its_longest_edge():
    plan = plan_resize(1200, 800, UNSPLIT)
    assert plan.longest_edge_size == (2048, 1366)
    assert plan.cut_size == plan.global_size == (512, 512)
    assert plan.grid == Grid(rows=0, columns=0)
    assert plan.grid.num_tiles == 1


def test_a_longest_edge_of_one_tile_is_never_cut():
    settings = TileSettings(tile_side_px=512, longest_edge_px=512, image_splitting=True)
    assert grid_for(4000, 3000, settings) == Grid(rows=0, columns=0)


def test_an_odd_edge_can_round_the_short_side_above_the_long_one():
    """99 x 99 is 3 tiles of 33, but the truncated side is made even: 100, and so 4 rows, as the
    processor has it."""
    settings = TileSettings(tile_side_px=33, longest_edge_px=99, image_splitting=True)
    assert plan_resize(7, 7, settings).longest_edge_size == (99, 100)
    assert grid_for(7, 7, settings) == Grid(rows=4, columns=4)


def test_no_side_is_ever_planned_above_4096_px():
    settings = TileSettings(tile_side_px=1024, longest_edge_px=6144, image_splitting=True)
    assert plan_resize(300, 100, settings).longest_edge_size == (4096, 1365)
    tall = plan_resize(100, 300, settings)
    assert (tall.longest_edge_size, tall.cut_size) == ((1365, 4096), (2048, 4096))
    assert plan_resize(100, 100, settings).longest_edge_size == (4096, 4096)


def test_where_the_limit_is_no_whole_number_of_tiles_the_short_side_grows_with_the_long_one():
    """4096 px become 4200; the other side, 2793 px, is then 2864 and takes a fifth row."""
    settings = TileSettings(tile_side_px=700, longest_edge_px=4200, image_splitting=True)
    plan = plan_resize(22, 15, settings)
    assert (plan.longest_edge_size, plan.cut_size) == ((4096, 2793), (4200, 3500))
    assert plan.grid == Grid(rows=5, columns=6)


@given(width=sides, height=sides, settings=legal_settings())
def test_the_grid_fills_the_cut_and_stays_within_the_tags(width, height, settings):
    plan = plan_resize(width, height, settings)
    side, grid = settings.tile_side_px, plan.grid
    if grid == Grid(rows=0, columns=0):
        assert plan.cut_size == plan.global_size
    else:
        assert settings.image_splitting
        assert plan.cut_size == (grid.columns * side, grid.rows * side)
        assert grid.rows * grid.columns > 1
        assert max(grid.rows, grid.columns) <= MAX_TILES_PER_SIDE
    assert min(plan.longest_edge_size) >= 1


@given(width=sides, height=sides)
def test_for_even_tiles_a_quarter_turn_swaps_rows_and_columns(width, height):
    grid, turned = grid_for(width, height, RELEASED), grid_for(height, width, RELEASED)
    # The two orders of the same division may truncate differently, and only by one pixel before it
    # is made even.
    assert abs(grid.rows - turned.columns) <= 1
    assert abs(grid.columns - turned.rows) <= 1
    if width >= height:
        assert grid.columns == 4


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_a_picture_without_pixels_breaks_the_contract(width, height):
    with pytest.raises(ValueError, match=f"a picture of {width} x {height} px has no pixels"):
        plan_resize(width, height, RELEASED)


@pytest.mark.parametrize(
    ("side", "edge"), [(512, 2048), (384, 1536), (384, 1920), (512, 512), (512, 3072)]
)
def test_whole_tiles_up_to_six_are_legal(side, edge):
    check_tile_settings(TileSettings(tile_side_px=side, longest_edge_px=edge, image_splitting=True))


@pytest.mark.parametrize(
    ("side", "edge", "text"),
    [
        (512, 2000, "longest_edge_px=2000 is not a multiple of the tile side, 512"),
        (
            384,
            2688,
            "longest_edge_px=2688 is 7 tiles of 384 px, and the vocabulary's tags end at 6",
        ),
        (512, 0, "longest_edge_px=0 is not a length in pixels"),
        (0, 512, "tile_side_px=0 is not a length in pixels"),
    ],
)
def test_other_lengths_are_refused_with_the_ones_that_would_do(side, edge, text):
    with pytest.raises(ConfigError) as raised:
        check_tile_settings(
            TileSettings(tile_side_px=side, longest_edge_px=edge, image_splitting=True)
        )
    assert text in str(raised.value)
    if side and edge:
        assert f"set longest_edge_px to one of {side}, {2 * side}, {3 * side}" in str(raised.value)


def test_without_splitting_any_longest_edge_will_do():
    check_tile_settings(TileSettings(tile_side_px=512, longest_edge_px=2000, image_splitting=False))
