"""SmolLM2-135M-Instruct's weights from its 4-bit GGUF file, as a state dict of the stock Llama class.

In: the GGUF file. Out: float32 tensors under transformers' names, for all 30 layers or the first few, with the
vocabulary extended by the image tokens and the output head an untied copy of the embeddings. The file is read with
the gguf package directly: it needs seconds where a load through transformers also rebuilds a tokenizer and
returns a model marked as quantised, which cannot be saved. The weights were rounded to 4 bits (embeddings to 8)
when the file was made: results with them are neither SmolLM2's nor SmolVLM's.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from smolvlm.model.parts.configs import LanguageDimensions
from smolvlm.model.parts.tokenizer import TEXT_VOCABULARY_SIZE, VOCABULARY_SIZE

NUM_LAYERS = 30
_NUM_HEADS = 9
_NUM_KEY_VALUE_HEADS = 3
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def language_dimensions(*, num_layers: int) -> LanguageDimensions:
    """Return the shape of SmolLM2-135M with its first layers.

    Raises:
        ValueError: the layers are not 1 to 30.
    """
    if not 1 <= num_layers <= NUM_LAYERS:
        raise ValueError(f"num_layers={num_layers} is not 1 to {NUM_LAYERS}")
    return LanguageDimensions(
        hidden_size=576,
        num_layers=num_layers,
        num_heads=_NUM_HEADS,
        num_key_value_heads=_NUM_KEY_VALUE_HEADS,
        intermediate_size=1536,
    )


def read_language_model(gguf_file: Path, *, num_layers: int) -> dict[str, Tensor]:
    """Return the text model's state dict (`embed_tokens.weight`, `layers.0...`, `norm.weight`), vocabulary as stored.

    Args:
        gguf_file: SmolLM2-135M-Instruct.
        num_layers: how many of the 30 layers to take, from the first.
    """
    return dict(_tensors(gguf_file, num_layers))


def extend_vocabulary(
    embeddings: Float[Tensor, "text_vocabulary hidden"], *, generator: torch.Generator
) -> Float[Tensor, "vocabulary hidden"]:
    """Return the embeddings with rows for the image tokens behind them.

    A new row is the mean row plus noise of the rows' own spread: as long as a common row, and told apart from
    its neighbours from the first step on.

    Args:
        embeddings: 49,152 rows.
        generator: the source of the noise.
    """
    mean, std = embeddings.mean(dim=0), embeddings.std(dim=0)
    noise = torch.randn(VOCABULARY_SIZE - TEXT_VOCABULARY_SIZE, embeddings.shape[1], generator=generator)
    return torch.cat([embeddings, mean + std * noise])


def _tensors(gguf_file: Path, num_layers: int) -> Iterator[tuple[str, Tensor]]:
    from gguf import GGUFReader, dequantize

    names = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
    for index in range(num_layers):
        names.update(
            {f"blk.{index}.{old}.weight": f"layers.{index}.{new}.weight" for old, new in _LAYER_TENSORS.items()}
        )
    for tensor in GGUFReader(gguf_file).tensors:
        if tensor.name not in names:
            continue
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if ".attn_q." in tensor.name:
            weight = _halves_from_pairs(weight, num_heads=_NUM_HEADS)
        if ".attn_k." in tensor.name:
            weight = _halves_from_pairs(weight, num_heads=_NUM_KEY_VALUE_HEADS)
        yield names[tensor.name], weight


def _halves_from_pairs(weight: Float[Tensor, "out hidden"], *, num_heads: int) -> Float[Tensor, "out hidden"]:
    """Reorder each head's rows: the file rotates neighbouring pairs (0, 1), transformers rotates halves (0, d/2)."""
    pairs = weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
