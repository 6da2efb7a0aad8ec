"""A real base model out of parts: pretrained vision tower, language model, SmolVLM's tokenizer and
processor.

In: a recipe. Out: one stock checkpoint folder that `AutoModelForImageTextToText` and
`AutoProcessor` load with no code of ours. Only the connector (and, where the recipe asks for one, a
small language model) starts at random: the model knows nothing about pictures yet and is made to be
trained. Same recipe, same bytes; a folder that already holds the recipe's result is left alone. The
default recipe is the one of the quickstart, chosen by measurement (docs/results.md) to learn a
small visual question answering task within minutes on two CPU cores.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from smolvlm.build import language_model, vit_s14_tower
from smolvlm.build.build import fill_language, init_connector
from smolvlm.build.calibration import standardise_output
from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.configs import LanguageDimensions, build_config
from smolvlm.build.part import LanguageWeights
from smolvlm.build.processor import ModelType, PictureSettings
from smolvlm.build.sources import (
    SMOLLM2_WHEEL,
    VISION_WHEEL,
    language_model_gguf,
    vision_tower_onnx,
)
from smolvlm.build.tokenizer import tokenizer_json
from smolvlm.build.vocabulary import smolvlm_vocabulary
from smolvlm.disk.atomic_files import making_folder
from smolvlm.model.stock_classes import STOCK_CLASSES, StockModel

RECIPE_FILE = "recipe.json"
_FORMAT = 1
"""Counted up when the same recipe comes to give other weights."""
_RANDOM_EMBEDDING_STD = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SmolLM2Layers:
    """The first layers of SmolLM2-135M-Instruct (rounded to 4 bits), 576 wide."""

    num_layers: int = language_model.NUM_LAYERS


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomLanguage:
    """A small randomly initialised Llama: with few data and minutes, it learns fastest.

    Weights start with a spread of 1/sqrt(width) and word embeddings with a spread of 1. At the
    customary smaller values the same model did not begin to compare a question's word with the
    picture in twice the steps.
    """

    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseRecipe:
    """What a base model is assembled from."""

    model_type: ModelType = "smolvlm"
    tile_side_px: int = 112
    """Side of a tile; a multiple of 14."""
    longest_edge_px: int = 112
    """What a picture's longest edge is scaled to: 1 to 6 tile sides; one tile side with splitting
    switched off."""
    vision_layers: int = 4
    """Layers kept of the tower's 12: the first ones see colour and edges, and cost less."""
    scale_factor: int = 2
    """Pixel shuffle: (tile_side_px / 14 / scale_factor)^2 tokens a tile."""
    language: SmolLM2Layers | RandomLanguage = field(default_factory=RandomLanguage)
    seed: int = 0


def assemble_base_model(out_dir: Path, *, recipe: BaseRecipe | None = None) -> Path:
    """Write the recipe's checkpoint into `out_dir` and return it; at once if it is there.

    Args:
        out_dir: replaced if it holds anything else.
        recipe: the quickstart's where not given.

    Raises:
        ConfigError: a part could not be fetched from the package index.
        ValueError: sizes in the recipe that do not fit together.
    """
    recipe = recipe or BaseRecipe()
    fingerprint = recipe_fingerprint(recipe)
    mark = out_dir / RECIPE_FILE
    if mark.exists() and mark.read_text(encoding="utf-8") == fingerprint:
        return out_dir
    model = build_base_model(recipe)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with making_folder(out_dir) as folder:
        write_checkpoint(
            folder,
            model,
            model_type=recipe.model_type,
            pictures=PictureSettings(longest_edge_px=recipe.longest_edge_px),
        )
        (folder / RECIPE_FILE).write_text(fingerprint, encoding="utf-8")
    return out_dir


def recipe_fingerprint(recipe: BaseRecipe) -> str:
    """Return the recipe and the digests of its parts as JSON text: equal text, equal model."""
    parts = {wheel.requirement: wheel.sha256 for wheel in (SMOLLM2_WHEEL, VISION_WHEEL)}
    content = {
        "format": _FORMAT,
        "recipe": {
            **asdict(recipe),
            "language": {type(recipe.language).__name__: asdict(recipe.language)},
        },
        "parts": parts,
    }
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def build_base_model(recipe: BaseRecipe) -> StockModel:
    """Return the recipe's model in memory, float32."""
    vision = vit_s14_tower.vision_dimensions(
        tile_side_px=recipe.tile_side_px, num_layers=recipe.vision_layers
    )
    config = build_config(
        vision,
        _language_dimensions(recipe.language),
        scale_factor=recipe.scale_factor,
        model_type=recipe.model_type,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = STOCK_CLASSES[recipe.model_type](config)
    tower_state = vit_s14_tower.convert_tower(
        vit_s14_tower.read_onnx(vision_tower_onnx()),
        tile_side_px=recipe.tile_side_px,
        num_layers=recipe.vision_layers,
    )
    model.model.vision_model.load_state_dict(tower_state)
    standardise_output(model.model.vision_model, tile_side_px=recipe.tile_side_px)
    if isinstance(recipe.language, SmolLM2Layers):
        embeddings = _load_smollm2(
            model, num_layers=recipe.language.num_layers, generator=generator
        )
    else:
        embeddings = model.get_input_embeddings().weight
        torch.nn.init.normal_(embeddings, std=_RANDOM_EMBEDDING_STD, generator=generator)
    connector = model.model.connector.modality_projection.proj.weight
    init_connector(connector, like=embeddings, feature_size=1.0, generator=generator)
    return model


def _language_dimensions(language: SmolLM2Layers | RandomLanguage) -> LanguageDimensions:
    if isinstance(language, SmolLM2Layers):
        return language_model.language_dimensions(num_layers=language.num_layers)
    return LanguageDimensions(
        hidden_size=language.hidden_size,
        num_layers=language.num_layers,
        num_heads=language.num_heads,
        num_key_value_heads=language.num_heads,
        intermediate_size=language.hidden_size * 8 // 3 // 32 * 32,
        initializer_range=1.0 / math.sqrt(language.hidden_size),
    )


def _load_smollm2(
    model: StockModel,
    *,
    num_layers: int,
    generator: torch.Generator,
) -> Tensor:
    state = language_model.read_language_model(language_model_gguf(), num_layers=num_layers)
    vocabulary = smolvlm_vocabulary(tokenizer_json())
    return fill_language(
        model, LanguageWeights(state=state, head=None), vocabulary, generator=generator
    )
