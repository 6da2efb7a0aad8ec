"""Timing of towers: every tower every round, the first is the measure of the others."""

from pathlib import Path

from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.build.tower_timing import _random_towers, measure_tiles


def test_towers_are_timed_in_turn(siglip: Path) -> None:
    sides = {"small": 28, "large": 448}
    recipe = {"language": "smollm2-135m", "vision": str(siglip), "scale_factor": 1}
    plans = {
        name: plan_build(BuildRecipe(**recipe, tile_side_px=side)) for name, side in sides.items()
    }
    times = measure_tiles(
        {name: plan.config.vision_config for name, plan in plans.items()}, rounds=3
    )
    assert list(times) == ["small", "large"]
    assert times["small"].ratio == 1.0
    assert times["large"].ratio > 1.5, "256 times the patches"
    assert times["large"].tile_ms > times["small"].tile_ms > 0


def test_towers_with_layers_alike_share_them(siglip: Path) -> None:
    plans = [
        plan_build(BuildRecipe(language="smollm2-135m", vision=str(siglip), tile_side_px=side))
        for side in (28, 56)
    ]
    small, large = _random_towers(
        {str(plan.dimensions.tile_side_px): plan.config.vision_config for plan in plans}
    ).values()
    assert small.encoder is large.encoder
    assert (
        small.embeddings.position_embedding.weight.shape
        != large.embeddings.position_embedding.weight.shape
    )
    assert not any(
        parameter.is_meta for tower in (small, large) for parameter in tower.parameters()
    )
