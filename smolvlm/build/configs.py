"""Model configurations: the published sizes, and any other of the same family.

In: the dimensions of the two towers. Out: a stock `Idefics3Config` or `SmolVLMConfig`; the two
model types share every dimension, so one table serves both. The published sizes allow counting and
timing at true dimensions, without weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from transformers import Idefics3Config, Idefics3VisionConfig, SmolVLMConfig, SmolVLMVisionConfig

from smolvlm.build.processor import ModelType
from smolvlm.build.tokenizer import VOCABULARY_SIZE, PromptIds

PublishedSize = Literal["256M", "500M", "2.2B"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionDimensions:
    """Shape of the vision tower."""

    tile_side_px: int
    patch_size_px: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    activation: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @property
    def patches_per_side(self) -> int:
        return self.tile_side_px // self.patch_size_px


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageDimensions:
    """Shape of the language model (Llama layout)."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    intermediate_size: int
    rope_theta: float = 100_000.0
    max_positions: int = 8192
    vocabulary_size: int = VOCABULARY_SIZE
    initializer_range: float = 0.02
    """Standard deviation of randomly initialised weights."""
    rms_norm_eps: float = 1e-5


_SIGLIP_BASE = VisionDimensions(
    tile_side_px=512,
    patch_size_px=16,
    hidden_size=768,
    num_layers=12,
    num_heads=12,
    intermediate_size=3072,
)
_SIGLIP_SO400M = VisionDimensions(
    tile_side_px=384,
    patch_size_px=14,
    hidden_size=1152,
    num_layers=27,
    num_heads=16,
    intermediate_size=4304,
)
PUBLISHED_TOWERS: Mapping[str, VisionDimensions] = {
    "siglip-base-512": _SIGLIP_BASE,
    "siglip-so400m-384": _SIGLIP_SO400M,
    "paligemma2-448": replace(_SIGLIP_SO400M, tile_side_px=448),
    "paligemma2-896": replace(_SIGLIP_SO400M, tile_side_px=896),
}
"""Vision towers by name, at the side that they were trained with. PaliGemma 2 has SigLIP so400m's
tower."""
PUBLISHED_LANGUAGE_MODELS: Mapping[str, LanguageDimensions] = {
    "smollm2-135m": LanguageDimensions(
        hidden_size=576, num_layers=30, num_heads=9, num_key_value_heads=3, intermediate_size=1536
    ),
    "smollm2-360m": LanguageDimensions(
        hidden_size=960, num_layers=32, num_heads=15, num_key_value_heads=5, intermediate_size=2560
    ),
    "smollm2-1.7b": LanguageDimensions(
        hidden_size=2048,
        num_layers=24,
        num_heads=32,
        num_key_value_heads=32,
        intermediate_size=8192,
        rope_theta=273_768.0,
        max_positions=16_384,
    ),
}
"""Language models by name, vocabulary extended to SmolVLM's; the largest with the first SmolVLM's
rotary base."""
_PUBLISHED = {
    "256M": ("siglip-base-512", "smollm2-135m", 4),
    "500M": ("siglip-base-512", "smollm2-360m", 4),
    "2.2B": ("siglip-so400m-384", "smollm2-1.7b", 3),
}


def published_config(
    size: PublishedSize, *, model_type: ModelType = "smolvlm"
) -> Idefics3Config | SmolVLMConfig:
    """Return the configuration with a published checkpoint's dimensions.

    The models have 256,484,928, 507,482,304 and 2,246,784,880 parameters, embeddings untied. For
    2.2B the rotary base and context are those of the first release; the dimensions are common to
    all releases.
    """
    tower, language, scale_factor = _PUBLISHED[size]
    return build_config(
        PUBLISHED_TOWERS[tower],
        PUBLISHED_LANGUAGE_MODELS[language],
        scale_factor=scale_factor,
        model_type=model_type,
    )


def build_config(
    vision: VisionDimensions,
    language: LanguageDimensions,
    *,
    scale_factor: int,
    model_type: ModelType,
) -> Idefics3Config | SmolVLMConfig:
    """Return a stock configuration: untied embeddings, RMSNorm eps 1e-5, SiLU, the special ids.

    Args:
        scale_factor: pixel shuffle; a tile gives (patches per side / scale_factor)^2 tokens.

    Raises:
        ValueError: the patches per side are not a multiple of the scale factor.
    """
    ids = PromptIds(vocabulary_size=language.vocabulary_size)
    return join_configs(
        vision, text_settings(language), scale_factor=scale_factor, model_type=model_type, ids=ids
    )


def text_settings(language: LanguageDimensions) -> dict[str, Any]:
    """Return the dimensions as `LlamaConfig` names them, without vocabulary and special ids."""
    return {
        "hidden_size": language.hidden_size,
        "intermediate_size": language.intermediate_size,
        "num_hidden_layers": language.num_layers,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_key_value_heads,
        "head_dim": language.hidden_size // language.num_heads,
        "max_position_embeddings": language.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": language.rope_theta},
        "rms_norm_eps": language.rms_norm_eps,
        "hidden_act": "silu",
        "initializer_range": language.initializer_range,
    }


def join_configs(
    vision: VisionDimensions,
    text_config: Mapping[str, Any],
    *,
    scale_factor: int,
    model_type: ModelType,
    ids: PromptIds,
) -> Idefics3Config | SmolVLMConfig:
    """Return a stock configuration with untied embeddings, of a tower and a language model.

    Args:
        text_config: what `LlamaConfig` takes; with a `model_type`, that family's.
        scale_factor: pixel shuffle; a tile gives (patches per side / scale_factor)^2 tokens.
        ids: size and special ids of the vocabulary.

    Raises:
        ValueError: the patches per side are not a multiple of the scale factor.
    """
    if vision.patches_per_side % scale_factor:
        raise ValueError(
            f"{vision.patches_per_side} patches a side are not a multiple of "
            f"scale_factor={scale_factor}"
        )
    config_class = {"idefics3": Idefics3Config, "smolvlm": SmolVLMConfig}[model_type]
    return config_class(
        image_token_id=ids.image,
        scale_factor=scale_factor,
        tie_word_embeddings=False,
        pad_token_id=ids.pad,
        vision_config={
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_layers,
            "num_attention_heads": vision.num_heads,
            "image_size": vision.tile_side_px,
            "patch_size": vision.patch_size_px,
            "hidden_act": vision.activation,
            "layer_norm_eps": vision.layer_norm_eps,
        },
        text_config={
            "model_type": "llama",
            **text_config,
            "vocab_size": ids.vocabulary_size,
            "tie_word_embeddings": False,
            "bos_token_id": ids.start,
            "eos_token_id": ids.end,
            "pad_token_id": ids.pad,
        },
    )


def tokens_per_tile(config: Idefics3Config | SmolVLMConfig) -> int:
    """Return how many language-model tokens one tile becomes."""
    side_px, patch_px = _vision_sizes_px(config)
    return (side_px // patch_px) ** 2 // config.scale_factor**2


def tile_side_px(config: Idefics3Config | SmolVLMConfig) -> int:
    """Return the side of the square tiles that the tower takes."""
    return _vision_sizes_px(config)[0]


def _vision_sizes_px(config: Idefics3Config | SmolVLMConfig) -> tuple[int, int]:
    vision = config.vision_config
    assert isinstance(vision, Idefics3VisionConfig | SmolVLMVisionConfig)
    assert isinstance(vision.image_size, int)
    assert isinstance(vision.patch_size, int)
    return vision.image_size, vision.patch_size
