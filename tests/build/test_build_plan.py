"""Plans of builds: what is chosen where nothing is said, what is refused, and what the user is
told."""

from dataclasses import replace
from pathlib import Path

import pytest

from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"scale_factor": 3},
            "scale_factor=3 does not divide 4 patches a side\n  fix: give one of 1, 2, 4, or "
            "another",
        ),
        (
            {"tile_side_px": 13},
            "tile_side_px=13 is less than one patch of 14 px\n  fix: give a multiple of 14",
        ),
        (
            {"tile_side_px": 70},
            "none of 2, 3, 4, 8 divides 5 patches a side\n  fix: give another tile side, or a",
        ),
        ({"vision_layers": 4}, "vision_layers=4 is not 1 to 3"),
        ({"longest_edge_px": 100}, "longest_edge_px=100 is not a multiple of the tile side, 64"),
        ({"longest_edge_px": 448}, "longest_edge_px=448 is 7 tiles of 64 px"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(
    siglip: Path, other_llama: Path, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_build(replace(BuildRecipe(language=str(other_llama), vision=str(siglip)), **options))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("vision", "factor", "tokens", "edge"),
    [
        ("siglip-base-512", 4, 64, 2048),
        ("siglip-so400m-384", 3, 81, 1536),
        ("paligemma2-448", 4, 64, 1792),
        ("paligemma2-896", 8, 64, 1792),
    ],
)
def test_published_towers_get_the_published_settings(
    vision: str, factor: int, tokens: int, edge: int
) -> None:
    plan = plan_build(BuildRecipe(language="smollm2-135m", vision=vision))
    assert plan.config.scale_factor == factor
    assert (plan.dimensions.patches_per_side // factor) ** 2 == tokens
    assert plan.longest_edge_px == edge
    assert not any("of their neighbours" in note for note in plan.notes)


def test_sides_that_the_stock_class_rounds_wrong_are_said(other_llama: Path) -> None:
    plan = plan_build(
        BuildRecipe(
            language=str(other_llama), vision="siglip-base-512", tile_side_px=400, scale_factor=5
        )
    )
    assert (
        "with 25 patches a side transformers' vision class gives 10 rows and columns the position "
        "of their neighbours "
        "(float32 rounding): features are not the source's; "
        "tile sides without this: 336, 352, 368, 384, 416, 432, 448 px"
    ) in plan.notes
