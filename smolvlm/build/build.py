"""A model of the SmolVLM family out of any vision tower and any Llama.

In: a `BuildPlan`. Out: one stock checkpoint folder. The tower's features and the language model's
answers to text are the sources' own; between them the connector starts at random, with such a
spread that what it makes of pictures is as large as the word embeddings.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolvlm.build.build_plan import BuildPlan
from smolvlm.build.calibration import NUM_PICTURES, feature_size, standardise_output
from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.known_parts import download_of
from smolvlm.build.language_model import extend_vocabulary
from smolvlm.build.part import LanguageWeights
from smolvlm.build.processor import PictureSettings
from smolvlm.build.tower_tensors import resize_positions
from smolvlm.build.vocabulary import Vocabulary
from smolvlm.checkpoints.new_folder import new_folder
from smolvlm.errors import ConfigError
from smolvlm.model.stock_classes import STOCK_CLASSES, StockModel
from smolvlm.model.vision import PixelScaling

_PATCHES_TO_MEASURE = 16_384


def write_build(plan: BuildPlan, out_dir: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Build the planned model and write it, with its processor, into a new folder.

    Args:
        out_dir: made; must be empty where it exists.
        dtype: what weights are saved in.

    Raises:
        ConfigError: a part is a name without weights, tensors cannot be read, or there is something
            in the folder.
    """
    with new_folder(out_dir) as folder:
        model, vocabulary = build_model(plan)
        torch.nn.Module.to(model, dtype)
        write_checkpoint(
            folder,
            model,
            model_type=plan.recipe.model_type,
            pictures=PictureSettings(
                longest_edge_px=plan.longest_edge_px,
                image_splitting=plan.recipe.image_splitting,
                pixel_mean=plan.vision.pixel_mean,
                pixel_std=plan.vision.pixel_std,
            ),
            vocabulary=vocabulary,
        )


def build_model(plan: BuildPlan) -> tuple[StockModel, Vocabulary]:
    """Return the planned model in memory, float32, and the vocabulary of its processor."""
    read_tower, read_language, vocabulary = _weights_of(plan)
    generator = torch.Generator().manual_seed(plan.recipe.seed)
    with torch.device("meta"):  # a model drawn at random would only be thrown away
        model = STOCK_CLASSES[plan.recipe.model_type](plan.config)
    _fill_tower(model, plan, read_tower(plan.dimensions.num_layers))
    embeddings = fill_language(model, read_language(), vocabulary(), generator=generator)
    connector = model.model.connector.modality_projection.proj
    weight = torch.empty(connector.weight.shape)
    scaling = PixelScaling(
        rescale_factor=1 / 255, mean=plan.vision.pixel_mean, std=plan.vision.pixel_std
    )
    size = feature_size(
        model.model.vision_model,
        tile_side_px=plan.dimensions.tile_side_px,
        scaling=scaling,
        num_pictures=max(1, min(16, _PATCHES_TO_MEASURE // plan.dimensions.patches_per_side**2)),
    )
    init_connector(weight, like=embeddings, feature_size=size, generator=generator)
    connector.load_state_dict({"weight": weight}, assign=True)
    text = model.model.text_model
    rotary: Any = type(text.rotary_emb)
    text.rotary_emb = rotary(plan.config.text_config)  # it has buffers that no file holds
    return model, vocabulary()


def fill_language(
    model: StockModel,
    weights: LanguageWeights,
    vocabulary: Vocabulary,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Give a model a language model's tensors and the new tokens' rows; return the embeddings."""

    def extended(rows: Tensor) -> Tensor:
        ids = vocabulary.first_new_id, vocabulary.end_new_id
        return extend_vocabulary(rows, generator=generator, first_new_id=ids[0], end_new_id=ids[1])

    embeddings = extended(weights.state["embed_tokens.weight"])
    head = embeddings.clone() if weights.head is None else extended(weights.head)
    model.model.text_model.load_state_dict(
        {**weights.state, "embed_tokens.weight": embeddings}, assign=True
    )
    model.lm_head.load_state_dict({"weight": head}, assign=True)
    return embeddings


def init_connector(
    weight: Tensor, *, like: Tensor, feature_size: float, generator: torch.Generator
) -> None:
    """Draw the connector so that its output has the spread of the word embeddings.

    Args:
        weight: (hidden, features), filled in place.
        like: the embeddings.
        feature_size: root mean square of the tower's features.
        generator: the source of randomness.
    """
    std = like.detach().std().item() / (feature_size * math.sqrt(weight.shape[1]))
    torch.nn.init.normal_(weight, std=std, generator=generator)


def _weights_of(plan: BuildPlan):
    for part in (plan.vision, plan.language):
        if part.read is None:
            fix = download_of(part.where)
            raise ConfigError(
                "a shape without weights: it can be counted, not built", where=part.where, fix=fix
            )
    assert plan.vision.read
    assert plan.language.read
    assert plan.language.vocabulary
    return plan.vision.read, plan.language.read, plan.language.vocabulary


def _fill_tower(model: StockModel, plan: BuildPlan, state: dict[str, Tensor]) -> None:
    positions = "embeddings.position_embedding.weight"
    resized = resize_positions(state[positions], patches_per_side=plan.dimensions.patches_per_side)
    tower = model.model.vision_model
    tower.load_state_dict({**state, positions: resized}, assign=True)
    if plan.dimensions.num_layers < plan.vision.dimensions.num_layers:
        num_pictures = max(
            8, min(NUM_PICTURES, 8 * _PATCHES_TO_MEASURE // plan.dimensions.patches_per_side**2)
        )
        scaling = PixelScaling(
            rescale_factor=1 / 255, mean=plan.vision.pixel_mean, std=plan.vision.pixel_std
        )
        side = plan.dimensions.tile_side_px
        standardise_output(tower, tile_side_px=side, scaling=scaling, num_pictures=num_pictures)
