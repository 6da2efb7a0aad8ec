"""A language model of Llama's layout out of a GGUF file, as a state dict of the stock Llama class.

In: a GGUF file. Out: its shape, and float32 tensors under transformers' names, for all layers or
the first few. The file is read with the gguf package directly: it needs seconds where a load
through transformers also rebuilds a tokenizer and returns a model marked as quantised, which cannot
be saved. Weights that were rounded when the file was made stay so: what is built on the 4-bit
SmolLM2 of the package index is neither SmolLM2 nor SmolVLM.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from smolvlm.build.configs import PUBLISHED_LANGUAGE_MODELS, LanguageDimensions
from smolvlm.build.optional_packages import read_with
from smolvlm.build.tokenizer import TEXT_VOCABULARY_SIZE, VOCABULARY_SIZE
from smolvlm.errors import ConfigError

if TYPE_CHECKING:
    from gguf import GGUFReader

SMOLLM2_135M = PUBLISHED_LANGUAGE_MODELS["smollm2-135m"]
NUM_LAYERS = SMOLLM2_135M.num_layers
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
HEAD = "lm_head.weight"
"""The name of a separate output head in a state dict, beside the text model's tensors."""


def language_dimensions(*, num_layers: int) -> LanguageDimensions:
    """Return the shape of SmolLM2-135M with its first layers.

    Raises:
        ValueError: the layers are not 1 to 30.
    """
    if not 1 <= num_layers <= NUM_LAYERS:
        raise ValueError(f"num_layers={num_layers} is not 1 to {NUM_LAYERS}")
    return replace(SMOLLM2_135M, num_layers=num_layers)


def read_dimensions(gguf_file: Path) -> LanguageDimensions:
    """Return the shape that a GGUF file's header states.

    Raises:
        ConfigError: it is no GGUF file, or not of Llama's layout with plain rotary positions.
    """
    reader = _open(gguf_file)

    def field(name: str, default: Any = None) -> Any:
        if name not in reader.fields and default is None:
            raise ConfigError(
                f"its header lacks {name}", where=str(gguf_file), fix="use a complete GGUF file"
            )
        return reader.fields[name].contents() if name in reader.fields else default

    if (architecture := field("general.architecture")) != "llama":
        fix = "give a language model of Llama's layout, such as SmolLM2"
        raise ConfigError(
            f"a GGUF file of architecture {architecture}, not llama", where=str(gguf_file), fix=fix
        )
    names = {tensor.name for tensor in reader.tensors}
    scaling = field("llama.rope.scaling.type", "none")
    if "rope_freqs.weight" in names or scaling != "none" or any(".bias" in name for name in names):
        what = "this Llama has scaled rotary positions or biases, which are not read from GGUF"
        raise ConfigError(
            what, where=str(gguf_file), fix="give the folder with its safetensors weights"
        )
    num_heads, width = field("llama.attention.head_count"), field("llama.embedding_length")
    if field("llama.attention.key_length", width // num_heads) != width // num_heads:
        what = "its heads are not of width / heads, which is not read from GGUF"
        raise ConfigError(
            what, where=str(gguf_file), fix="give the folder with its safetensors weights"
        )
    return LanguageDimensions(
        hidden_size=width,
        num_layers=field("llama.block_count"),
        num_heads=num_heads,
        num_key_value_heads=field("llama.attention.head_count_kv", num_heads),
        intermediate_size=field("llama.feed_forward_length"),
        rope_theta=field("llama.rope.freq_base", 10_000.0),
        max_positions=field("llama.context_length"),
        vocabulary_size=next(
            int(tensor.shape[1]) for tensor in reader.tensors if tensor.name == "token_embd.weight"
        ),
        rms_norm_eps=float(
            f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"
        ),  # stored as float32
    )


def read_language_model(
    gguf_file: Path, *, num_layers: int, dimensions: LanguageDimensions = SMOLLM2_135M
) -> dict[str, Tensor]:
    """Return the text model's state dict, with the vocabulary as stored.

    A file whose output head is not its embeddings gives that too, as `lm_head.weight`.

    Args:
        gguf_file: SmolLM2-135M-Instruct, or any of `dimensions`.
        num_layers: how many of the layers to take, from the first.
        dimensions: of the file; its heads tell how rows are reordered.
    """
    return dict(_tensors(gguf_file, num_layers, dimensions))


def extend_vocabulary(
    embeddings: Float[Tensor, "text_vocabulary hidden"],
    *,
    generator: torch.Generator,
    first_new_id: int = TEXT_VOCABULARY_SIZE,
    end_new_id: int = VOCABULARY_SIZE,
) -> Float[Tensor, "vocabulary hidden"]:
    """Return the embeddings with rows for new tokens.

    A new row is the mean row plus noise of the rows' own spread: as long as a common row, and told
    apart from its neighbours from the first step on.

    Args:
        embeddings: at least `first_new_id` rows; rows beyond `end_new_id`, which no token has, are
            kept.
        generator: the source of the noise.
        first_new_id: the rows before it are the model's own.
        end_new_id: one past the last new row.
    """
    trained_rows = embeddings[:first_new_id]
    mean, std = trained_rows.mean(dim=0), trained_rows.std(dim=0)
    noise = torch.randn(end_new_id - first_new_id, trained_rows.shape[1], generator=generator)
    return torch.cat([trained_rows, mean + std * noise, embeddings[end_new_id:]])


def _open(gguf_file: Path) -> "GGUFReader":
    with read_with("gguf"):
        from gguf import GGUFReader

    try:
        return GGUFReader(gguf_file)
    except (ValueError, OSError, IndexError) as error:
        fix = "download the file again; it may be cut short"
        raise ConfigError(
            f"not a readable GGUF file: {error}", where=str(gguf_file), fix=fix
        ) from error


def _tensors(
    gguf_file: Path, num_layers: int, dimensions: LanguageDimensions
) -> Iterator[tuple[str, Tensor]]:
    with read_with("gguf"):
        from gguf import dequantize

    names = {
        "token_embd.weight": "embed_tokens.weight",
        "output_norm.weight": "norm.weight",
        "output.weight": HEAD,
    }
    for index in range(num_layers):
        names.update(
            {
                f"blk.{index}.{old}.weight": f"layers.{index}.{new}.weight"
                for old, new in _LAYER_TENSORS.items()
            }
        )
    for tensor in _open(gguf_file).tensors:
        if tensor.name not in names:
            continue
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if ".attn_q." in tensor.name:
            weight = _halves_from_pairs(weight, num_heads=dimensions.num_heads)
        if ".attn_k." in tensor.name:
            weight = _halves_from_pairs(weight, num_heads=dimensions.num_key_value_heads)
        yield names[tensor.name], weight


def _halves_from_pairs(
    weight: Float[Tensor, "out hidden"], *, num_heads: int
) -> Float[Tensor, "out hidden"]:
    """Reorder each head's rows from neighbouring pairs (0, 1) to halves (0, d/2).

    The file rotates the former, transformers the latter.
    """
    pairs = weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)
