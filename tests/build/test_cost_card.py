"""Cost cards at published dimensions: parameters to the unit, tokens as the processor writes them,
FLOPs as counted."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.build.cost_card import WISH_LIST, cost_card, wish_list_plans
from smolvlm.model.flops import causal_score_flops
from smolvlm.model.vision import run_tower

SO400M_AT = {384: 412_987_248, 448: 413_327_088, 896: 416_866_032}
"""Parameters of SigLIP so400m/14 without its head, by tile side: the table of positions grows."""


@pytest.mark.parametrize(
    ("vision", "language", "options", "parameters", "patches", "tokens"),
    [
        ("siglip-base-512", "smollm2-135m", {}, 256_484_928, 1024, 64),
        ("siglip-base-512", "smollm2-360m", {"model_type": "idefics3"}, 507_482_304, 1024, 64),
        ("siglip-so400m-384", "smollm2-1.7b", {}, 2_246_784_880, 729, 81),
        (
            "paligemma2-448",
            "smollm2-1.7b",
            {},
            2_246_784_880 + 295 * 1152 + 7 * 1152 * 2048,
            1024,
            64,
        ),
        (
            "paligemma2-896",
            "smollm2-1.7b",
            {"scale_factor": 4},
            2_246_784_880 + 3367 * 1152 + 7 * 1152 * 2048,
            4096,
            256,
        ),
        (
            "paligemma2-896",
            "smollm2-1.7b",
            {"scale_factor": 8},
            2_246_784_880 + 3367 * 1152 + 55 * 1152 * 2048,
            4096,
            64,
        ),
    ],
)
def test_parameters_are_the_published_ones(
    vision: str, language: str, options: dict, parameters: int, patches: int, tokens: int
) -> None:
    plan = plan_build(BuildRecipe(vision=vision, language=language, **options))
    card = cost_card(plan, name="it")
    assert (card.parameters, card.patches_per_tile, card.tokens_per_tile) == (
        parameters,
        patches,
        tokens,
    )
    if "so400m" in vision or "paligemma" in vision:
        assert card.tower_parameters == SO400M_AT[plan.dimensions.tile_side_px]
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(plan.config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_published_split_costs_what_is_published() -> None:
    """17 tiles: about 1.14 k tokens at 64 a tile, 1.43 k at 81."""
    for vision, tokens in (("siglip-base-512", 1_127), ("siglip-so400m-384", 1_416)):
        card = cost_card(plan_build(BuildRecipe(vision=vision, language="smollm2-135m")), name="it")
        one, split = card.pictures
        assert (one.tiles, split.tiles, split.rows) == (1, 17, 4)
        assert one.tokens == card.tokens_per_tile + 3
        assert (
            split.tokens == tokens == 16 * (card.tokens_per_tile + 2) + 4 + card.tokens_per_tile + 3
        )
        assert split.tower_flops == 17 * one.tower_flops


def test_without_splitting_a_picture_is_one_tile() -> None:
    recipe = BuildRecipe(vision="siglip-base-512", language="smollm2-135m", image_splitting=False)
    assert [picture.rows for picture in cost_card(plan_build(recipe), name="it").pictures] == [0]


def test_the_towers_flops_are_those_that_run() -> None:
    plan = plan_build(BuildRecipe(vision="siglip-so400m-384", language="smollm2-135m"))
    with torch.device("meta"):
        tower = AutoModelForImageTextToText.from_config(plan.config).model.vision_model
        with FlopCounterMode(display=False) as counter:
            run_tower(tower, torch.empty(1, 3, 384, 384))
    assert counter.get_total_flops() == cost_card(plan, name="it").pictures[0].tower_flops


def test_the_language_models_flops_are_those_that_run(siglip: Path, other_llama: Path) -> None:
    """Written out, attention takes a whole square of scores, of which the causal half is needed."""
    plan = plan_build(
        BuildRecipe(
            vision=str(siglip), language=str(other_llama), tile_side_px=448, longest_edge_px=448
        )
    )
    picture = cost_card(plan, name="it").pictures[0]
    model = AutoModelForImageTextToText.from_config(
        plan.config, attn_implementation="eager"
    ).model.text_model
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.zeros(1, picture.tokens, 32), use_cache=False)
    upper_half = causal_score_flops(plan.config.text_config, picture.tokens)
    assert counter.get_total_flops() == pytest.approx(picture.language_flops + upper_half, rel=1e-3)


def test_the_wish_list_holds_every_proposed_tower() -> None:
    plans = wish_list_plans("smollm2-135m")
    assert [plan.recipe.vision for _, plan in plans] == [tower for tower, *_ in WISH_LIST]
    assert len({name for name, _ in plans}) == len(plans)
