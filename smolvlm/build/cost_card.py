"""What a build costs before anything is built: parameters, tokens a picture, FLOPs a picture.

In: a plan. Out: a `CostCard`. Parameters are counted on the meta device at true dimensions, tokens
by the very function that writes a picture's ids, FLOPs by the estimate that training logs use, for
one forward pass. The picture is a square one, which costs most: as one tile, and cut as the longest
edge implies.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch

from smolvlm.build.build_plan import BuildPlan, BuildRecipe, plan_build
from smolvlm.build.configs import tokens_per_tile
from smolvlm.datasets.encoding.encode import image_block
from smolvlm.datasets.encoding.tokens import PromptTokens
from smolvlm.media.tile_grid import MAX_TILES_PER_SIDE, grid_for
from smolvlm.model.flops import causal_score_flops, tile_flops, token_flops
from smolvlm.model.stock_classes import STOCK_CLASSES
from smolvlm.model.towers import Tower, parameters_of
from smolvlm.protocols import TextConfig, VisionConfig
from smolvlm.records import Grid

WISH_LIST = (
    ("siglip-base-512", 4, 2048),
    ("siglip-so400m-384", 3, 1536),
    ("paligemma2-448", 4, 896),
    ("paligemma2-896", 8, 896),
    ("paligemma2-896", 4, 896),
)
"""Towers proposed for a next model: name, scale factor, longest edge in px (PaliGemma's: little
splitting or none)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureCost:
    """One square picture, forward."""

    rows: int
    """Of tiles, and columns alike; 0 for the global view alone."""
    tiles: int
    tokens: int
    tower_flops: float
    language_flops: float
    """Of the picture's own tokens, attention among them included, output head left out."""

    @property
    def name(self) -> str:
        return f"{self.rows} x {self.rows} tiles and a global view" if self.rows else "one tile"


@dataclass(frozen=True, kw_only=True, slots=True)
class CostCard:
    """What a model costs."""

    name: str
    tower_parameters: int
    connector_parameters: int
    language_parameters: int
    patches_per_tile: int
    tokens_per_tile: int
    pictures: tuple[PictureCost, ...]
    """One tile; and cut, where the longest edge is more than one tile."""

    @property
    def parameters(self) -> int:
        return self.tower_parameters + self.connector_parameters + self.language_parameters


def cost_card(plan: BuildPlan, *, name: str) -> CostCard:
    """Return what the planned model costs; nothing of it is read or held."""
    with torch.device("meta"):
        model = STOCK_CLASSES[plan.recipe.model_type](plan.config)

    def count(tower: Tower) -> int:
        return sum(parameter.numel() for _, parameter in parameters_of(model, tower))

    edge = plan.longest_edge_px
    rows = {0, grid_for(edge, edge, plan.tiles).rows}
    return CostCard(
        name=name,
        tower_parameters=count("vision_tower"),
        connector_parameters=count("connector"),
        language_parameters=count("language_model"),
        patches_per_tile=plan.dimensions.patches_per_side**2,
        tokens_per_tile=tokens_per_tile(plan.config),
        pictures=tuple(_picture(plan, number) for number in sorted(rows)),
    )


def wish_list_plans(language: str) -> list[tuple[str, BuildPlan]]:
    """Return the towers of `WISH_LIST` with a language model, each with its name."""
    recipe = BuildRecipe(language=language, vision="")
    return [
        (
            f"{tower}, shuffle {factor}",
            plan_build(replace(recipe, vision=tower, scale_factor=factor, longest_edge_px=edge)),
        )
        for tower, factor, edge in WISH_LIST
    ]


def _picture(plan: BuildPlan, rows: int) -> PictureCost:
    tiles = rows * rows + 1
    tokens = len(
        image_block(_placeholders(tokens_per_tile(plan.config)), Grid(rows=rows, columns=rows))
    )
    vision = cast("VisionConfig", plan.config.vision_config)
    text = cast("TextConfig", plan.config.text_config)
    return PictureCost(
        rows=rows,
        tiles=tiles,
        tokens=tokens,
        tower_flops=tiles * tile_flops(vision),
        language_flops=tokens * token_flops(text) + causal_score_flops(text, tokens),
    )


def _placeholders(num_tokens: int) -> PromptTokens:
    """Return stand-ins for a prompt's ids: only their number counts, and each tag is one id."""
    one, sides = (0,), range(1, MAX_TILES_PER_SIDE + 1)
    return PromptTokens(
        special={},
        end_of_turn=0,
        image=0,
        image_boundary=0,
        global_view=one,
        row_column={(row, column): one for row in sides for column in sides},
        row_end=one,
        last_row_end=one,
        pad=0,
        tokens_per_tile=num_tokens,
    )
