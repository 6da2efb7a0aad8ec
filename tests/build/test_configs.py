"""Configurations: the published sizes to the parameter, without any weights."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from smolvlm.build.configs import (
    LanguageDimensions,
    PublishedSize,
    VisionDimensions,
    build_config,
    published_config,
    tokens_per_tile,
)
from smolvlm.build.processor import ModelType


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm"])
@pytest.mark.parametrize(
    ("size", "num_parameters", "tokens"),
    [("256M", 256_484_928, 64), ("500M", 507_482_304, 64), ("2.2B", 2_246_784_880, 81)],
)
def test_published_sizes_have_the_published_number_of_parameters(
    size: PublishedSize, num_parameters: int, tokens: int, model_type: ModelType
) -> None:
    config = published_config(size, model_type=model_type)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == num_parameters
    assert config.model_type == model_type
    assert tokens_per_tile(config) == tokens
    assert config.text_config.rope_parameters["rope_theta"] == (
        273_768.0 if size == "2.2B" else 100_000.0
    )


def test_patches_that_the_scale_factor_does_not_divide_are_refused() -> None:
    vision = VisionDimensions(
        tile_side_px=40,
        patch_size_px=8,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        intermediate_size=8,
    )
    language = LanguageDimensions(
        hidden_size=8, num_layers=1, num_heads=1, num_key_value_heads=1, intermediate_size=8
    )
    with pytest.raises(ValueError, match="5 patches a side are not a multiple of scale_factor=2"):
        build_config(vision, language, scale_factor=2, model_type="smolvlm")
