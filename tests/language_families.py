"""Tiny language models of the families that a model is built upon, each with a tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "vocab_size": 288,
}
LANGUAGE_CONFIGS: dict[str, PreTrainedConfig] = {
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, sliding_window=64, use_sliding_window=False),
    "smollm3": SmolLM3Config(**SIZES, no_rope_layer_interval=2, pad_token_id=0),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
}


def make_language_model(folder: Path, family: str, tokenizer: Tokenizer) -> Path:
    """Write a tiny model of a family and its tokenizer, and return the folder."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LANGUAGE_CONFIGS[family])
    with torch.no_grad():
        for parameter in model.parameters():  # norms of queries and keys begin as ones
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"eos_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    return folder
