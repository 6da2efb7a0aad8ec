"""FLOPs of one forward pass, part by part, from a configuration's dimensions alone.

Counts multiply-adds as two, matrix products only.
"""

from smolvlm.protocols import TextConfig, VisionConfig


def tile_flops(vision: VisionConfig) -> float:
    """Return the FLOPs of the vision tower on one tile, attention scores included.

    Args:
        vision: `config.vision_config` of a model of the family.
    """
    return vision.num_hidden_layers * vision_layer_flops(vision) + patch_embedding_flops(vision)


def vision_layer_flops(vision: VisionConfig) -> float:
    """Return the FLOPs of one layer of the tower on one tile, attention scores included."""
    patches = (vision.image_size // vision.patch_size) ** 2
    products = patches * (
        4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    )
    return 2.0 * (products + 2 * patches**2 * vision.hidden_size)


def patch_embedding_flops(vision: VisionConfig) -> float:
    """Return the FLOPs of cutting one tile into patches and embedding them."""
    patches = (vision.image_size // vision.patch_size) ** 2
    return 2.0 * patches * 3 * vision.patch_size**2 * vision.hidden_size


def head_width(text: TextConfig) -> int:
    """Return the width of an attention head; some families state it only where it is unusual."""
    stated = getattr(text, "head_dim", None)
    return stated or text.hidden_size // text.num_attention_heads


def token_flops(text: TextConfig) -> float:
    """Return the FLOPs of the language model's layers on one token, without scores and head.

    Args:
        text: `config.text_config` of a model of the family.
    """
    return text.num_hidden_layers * decoder_layer_flops(text)


def decoder_layer_flops(text: TextConfig) -> float:
    """Return the FLOPs of one layer of the language model on one token, without scores."""
    heads = text.num_attention_heads + text.num_key_value_heads
    attention = 2 * text.hidden_size * head_width(text) * heads
    return 2.0 * (attention + 3 * text.hidden_size * text.intermediate_size)


def causal_score_flops(text: TextConfig, num_tokens: int) -> float:
    """Return the FLOPs of causal attention's scores and sums over a sequence, all layers."""
    width = text.num_attention_heads * head_width(text)
    return 2.0 * text.num_hidden_layers * width * num_tokens**2
