"""What is read from a processor, and what a run may set otherwise."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from smolvlm.build.processor import ModelType
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.errors import ConfigError
from smolvlm.media.tile_grid import TileSettings


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_everything_is_the_processors_own(
    processors: dict[ModelType, Any], model_type: ModelType
) -> None:
    settings = read_prompt_settings(processors[model_type])
    assert settings.media.pictures == TileSettings(
        tile_side_px=32, longest_edge_px=128, image_splitting=True
    )
    assert settings.tokens.tokens_per_tile == 4
    assert settings.tokens.pad == processors[model_type].tokenizer.pad_token_id


def test_a_run_may_set_the_longest_edge_and_the_splitting(processors: dict[ModelType, Any]) -> None:
    settings = read_prompt_settings(
        processors["smolvlm"], image_splitting=False, longest_edge_px=100
    )
    assert settings.media.pictures == TileSettings(
        tile_side_px=32, longest_edge_px=100, image_splitting=False
    )
    assert processors["smolvlm"].image_processor.do_image_splitting
    assert processors["smolvlm"].image_processor.size["longest_edge"] == 128


@pytest.mark.parametrize("longest_edge_px", [100, 7 * 32])
def test_an_edge_that_no_tags_fit_is_refused(
    processors: dict[ModelType, Any], longest_edge_px: int
) -> None:
    with pytest.raises(
        ConfigError, match=rf"longest_edge_px={longest_edge_px} is (.|\n)*fix: set longest_edge_px"
    ):
        read_prompt_settings(processors["smolvlm"], longest_edge_px=longest_edge_px)


def test_a_processor_that_does_not_split_is_believed(processors: dict[ModelType, Any]) -> None:
    processor = copy.copy(processors["smolvlm"])
    processor.image_processor = copy.copy(processor.image_processor)
    processor.image_processor.do_image_splitting = False
    assert not read_prompt_settings(processor).media.pictures.image_splitting
    assert read_prompt_settings(processor, image_splitting=True).media.pictures.image_splitting


def test_the_encoder_weighs_as_told(processors: dict[ModelType, Any]) -> None:
    settings = read_prompt_settings(processors["smolvlm"])
    assert settings.encoder().loss_weighting == "token"
    assert settings.encoder(loss_weighting="sqrt").loss_weighting == "sqrt"


def test_a_filter_that_tiles_are_not_made_with_is_refused(processors: dict[ModelType, Any]) -> None:
    processor = copy.copy(processors["smolvlm"])
    processor.image_processor = copy.copy(processor.image_processor)
    processor.image_processor.resample = 3
    with pytest.raises(
        ConfigError, match=r"^the processor resizes with resample=3(.|\n)*fix: set resample to 1"
    ):
        read_prompt_settings(processor)


def test_missing_tags_are_noticed_where_pictures_are_cut(processors: dict[ModelType, Any]) -> None:
    settings = read_prompt_settings(processors["smolvlm"])
    assert not settings.missing_tags
    in_pieces = dict.fromkeys(settings.tokens.row_column, (1, 2, 3))
    without = replace(settings, tokens=replace(settings.tokens, row_column=in_pieces))
    assert without.missing_tags
    assert not replace(
        without,
        media=replace(
            without.media, pictures=replace(without.media.pictures, image_splitting=False)
        ),
    ).missing_tags
