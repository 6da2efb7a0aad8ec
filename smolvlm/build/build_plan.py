"""What is to be built, settled before anything is built: sizes that fit each other, and what the
user should know.

In: a `BuildRecipe`, as the command line gives it. Out: a `BuildPlan`. It costs nothing: headers and
small files alone are read, and published shapes have no weights at all.
"""

from dataclasses import dataclass, replace

from transformers import Idefics3Config, SmolVLMConfig

from smolvlm.build.configs import VisionDimensions, join_configs
from smolvlm.build.known_parts import find_language, find_vision
from smolvlm.build.part import LanguagePart, VisionPart
from smolvlm.build.processor import ModelType
from smolvlm.errors import ConfigError
from smolvlm.media.tile_grid import MAX_TILES_PER_SIDE, TileSettings, check_tile_settings
from smolvlm.model.vision import misplaced_rows

SCALE_FACTORS = (2, 3, 4, 8)
MAX_DEFAULT_TOKENS = 81
"""Tokens a tile of the 2.2B model: the scale factor where none is asked for is the first with no
more."""
MAX_DEFAULT_EDGE_PX, MAX_DEFAULT_TILES = 2048, 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecipe:
    """What to build; None is the tower's own value or what follows from it."""

    language: str
    """A folder, a GGUF file or a name."""
    vision: str
    """A folder or a name."""
    tile_side_px: int | None = None
    scale_factor: int | None = None
    longest_edge_px: int | None = None
    """At most 2048 px and 4 tiles where not given."""
    image_splitting: bool = True
    vision_layers: int | None = None
    """Layers kept of the tower, from the first."""
    model_type: ModelType = "smolvlm"
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPlan:
    """A recipe with everything settled, and the parts it will be made of."""

    recipe: BuildRecipe
    vision: VisionPart
    language: LanguagePart
    dimensions: VisionDimensions
    """The tower as it will be."""
    config: Idefics3Config | SmolVLMConfig
    longest_edge_px: int
    notes: tuple[str, ...]
    """What the user should know before training it."""

    @property
    def tiles(self) -> TileSettings:
        return TileSettings(
            tile_side_px=self.dimensions.tile_side_px,
            longest_edge_px=self.longest_edge_px,
            image_splitting=self.recipe.image_splitting,
        )


def plan_build(recipe: BuildRecipe) -> BuildPlan:
    """Settle a recipe; only headers and small files are read.

    Raises:
        ConfigError: a part cannot be used, or sizes do not fit each other.
    """
    vision, language = find_vision(recipe.vision), find_language(recipe.language)
    dimensions = _settle_dimensions(vision, recipe)
    scale_factor = _settle_scale_factor(dimensions.patches_per_side, recipe.scale_factor)
    longest_edge_px = recipe.longest_edge_px or _default_edge_px(dimensions.tile_side_px)
    settings = TileSettings(
        tile_side_px=dimensions.tile_side_px, longest_edge_px=longest_edge_px, image_splitting=True
    )
    check_tile_settings(settings)
    config = join_configs(
        dimensions,
        language.text_config,
        scale_factor=scale_factor,
        model_type=recipe.model_type,
        ids=language.ids,
    )
    notes = (*vision.notes, *_tower_notes(vision, dimensions), *language.notes)
    return BuildPlan(
        recipe=recipe,
        vision=vision,
        language=language,
        dimensions=dimensions,
        config=config,
        longest_edge_px=longest_edge_px,
        notes=notes,
    )


def _settle_dimensions(vision: VisionPart, recipe: BuildRecipe) -> VisionDimensions:
    source = vision.dimensions
    side = source.tile_side_px if recipe.tile_side_px is None else recipe.tile_side_px
    layers = source.num_layers if recipe.vision_layers is None else recipe.vision_layers
    if side < source.patch_size_px:
        what = f"tile_side_px={side} is less than one patch of {source.patch_size_px} px"
        raise ConfigError(
            what, where=vision.where, fix=f"give a multiple of {source.patch_size_px}"
        )
    if not 1 <= layers <= source.num_layers:
        what = f"vision_layers={layers} is not 1 to {source.num_layers}"
        raise ConfigError(what, where=vision.where, fix="leave it out to keep all layers")
    if source.hidden_size % source.num_heads:
        what = f"{source.num_heads} heads do not divide a width of {source.hidden_size}"
        raise ConfigError(
            what, where=vision.where, fix="use the config.json that belongs to the weights"
        )
    return replace(source, tile_side_px=side, num_layers=layers)


def _settle_scale_factor(patches: int, asked: int | None) -> int:
    legal = [factor for factor in range(1, patches + 1) if patches % factor == 0]
    if asked is not None:
        if asked not in legal:
            fix = f"give one of {', '.join(map(str, legal))}, or another tile side"
            raise ConfigError(
                f"scale_factor={asked} does not divide {patches} patches a side", fix=fix
            )
        return asked
    usual = [factor for factor in SCALE_FACTORS if factor in legal]
    if not usual:
        what = f"none of {', '.join(map(str, SCALE_FACTORS))} divides {patches} patches a side"
        fix = f"give another tile side, or a scale factor of {', '.join(map(str, legal))}"
        raise ConfigError(what, fix=fix)
    few = [factor for factor in usual if (patches // factor) ** 2 <= MAX_DEFAULT_TOKENS]
    return few[0] if few else usual[-1]


def _default_edge_px(side: int) -> int:
    return side * max(1, min(MAX_DEFAULT_TILES, MAX_DEFAULT_EDGE_PX // side, MAX_TILES_PER_SIDE))


def _tower_notes(vision: VisionPart, dimensions: VisionDimensions) -> list[str]:
    source, patches = vision.dimensions, dimensions.patches_per_side
    notes = []
    if patches != source.patches_per_side:
        change = f"{source.patches_per_side} x {source.patches_per_side} to {patches} x {patches}"
        notes.append(f"position embeddings are resampled from {change} (bicubic)")
    if over := dimensions.tile_side_px - patches * dimensions.patch_size_px:
        notes.append(f"{over} px at a tile's right and lower edge belong to no patch")
    if dimensions.num_layers < source.num_layers:
        notes.append(
            f"the first {dimensions.num_layers} of {source.num_layers} layers; their last norm is "
            "set from drawn pictures"
        )
    if misplaced := misplaced_rows(patches):
        good = [
            side
            for side in range(patches - 4, patches + 5)
            if side > 1 and not misplaced_rows(side)
        ]
        sides = ", ".join(str(side * dimensions.patch_size_px) for side in good)
        notes.append(
            f"with {patches} patches a side transformers' vision class gives {len(misplaced)} rows "
            "and columns the "
            "position of their neighbours (float32 rounding): features are not the source's; "
            f"tile sides without this: {sides} px"
        )
    return notes
