"""Folders of tiny models, as transformers saves them: what a model is built from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from smolvlm.build.tokenizer import tokenizer_json
from tests.language_families import LANGUAGE_CONFIGS, make_language_model

VISION = {
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 14,
}
"""4 x 4 patches of 14 px, and 8 px that belong to none."""
GEMMA = {
    "model_type": "gemma2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "vocab_size": 300,
}
LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
}

Save = Callable[..., Path]


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a model with every weight drawn (none left at zero or one) and returns its folder."""

    def call(model: Any, **options: Any) -> Path:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        folder = tmp_path_factory.mktemp("part")
        model.save_pretrained(folder, **options)
        return folder

    return call


@pytest.fixture(scope="session")
def siglip(save: Save) -> Path:
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text |= {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2}
    return save(SiglipModel(SiglipConfig(vision_config=VISION, text_config=text)))


@pytest.fixture(scope="session")
def siglip_tower(save: Save) -> Path:
    return save(SiglipVisionModel(SiglipVisionConfig(**VISION)))


@pytest.fixture(scope="session")
def paligemma(save: Save) -> Path:
    """A full checkpoint in several shards."""
    vision = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
    config = PaliGemmaConfig(
        vision_config=vision, text_config=GEMMA, projection_dim=32, image_token_index=299
    )
    folder = save(PaliGemmaForConditionalGeneration(config), max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture(scope="session")
def dinov2(save: Save) -> Path:
    vision = {name: value for name, value in VISION.items() if name != "intermediate_size"}
    return save(Dinov2Model(Dinov2Config(**vision, mlp_ratio=2, layerscale_value=0.5)))


@pytest.fixture(scope="session")
def smollm2_tokenizer() -> str:
    """SmolLM2's own tokenizer.json: SmolVLM's without its 128 tokens."""
    document = json.loads(tokenizer_json())
    document["added_tokens"] = document["added_tokens"][:17]
    return json.dumps(document, ensure_ascii=False)


@pytest.fixture(scope="session")
def smollm2(save: Save, smollm2_tokenizer: str) -> Path:
    """A tiny language model of SmolLM2's vocabulary, output head tied."""
    folder = save(
        LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=49_152, tie_word_embeddings=True))
    )
    (folder / "tokenizer.json").write_text(smollm2_tokenizer)
    return folder


@pytest.fixture(scope="session")
def other_tokenizer() -> Tokenizer:
    """A byte-level BPE of 280 tokens whose prompts begin with a token of their own."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(
        vocab_size=280,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["what is it? it is a cat on a mat.", "User: what?", "Assistant: it is red."] * 20, trainer
    )
    assert tokenizer.get_vocab_size() == 280
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


@pytest.fixture(scope="session")
def other_llama(save: Save, other_tokenizer: Tokenizer) -> Path:
    """A Llama of another vocabulary: own head, biases, scaled rotary positions, wide heads, spare
    rows."""
    scaled = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 128}
    own = {
        "rope_parameters": scaled,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 12,
        "rms_norm_eps": 1e-4,
    }
    config = LlamaConfig(**{**LLAMA, **own}, vocab_size=288, tie_word_embeddings=False)
    folder = save(LlamaForCausalLM(config))
    other_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    return folder


@pytest.fixture(scope="session")
def families(
    other_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A tiny model of each family, with a tokenizer; not to be written to."""
    return {
        family: make_language_model(tmp_path_factory.mktemp(family), family, other_tokenizer)
        for family in LANGUAGE_CONFIGS
    }
