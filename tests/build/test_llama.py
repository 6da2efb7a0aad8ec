"""Language models as parts: GGUF files read as transformers reads them, and what is not of Llama's
layout refused."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from smolvlm.build.language_model import _LAYER_TENSORS
from smolvlm.build.llama import read_llama_gguf
from smolvlm.errors import ConfigError

HEADS, KEY_VALUE_HEADS, LAYERS, WIDTH = 4, 2, 2, 32


def pairs_from_halves(weight: Tensor, heads: int) -> Tensor:
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, *, arch: str = "llama", **extra: str
) -> None:
    """Write a Llama in float32 as the usual converter lays it out."""
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    for name, value in extra.items():
        writer.add_string(name.replace("__", "."), value)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for index in range(config.num_hidden_layers):
        names |= {
            f"blk.{index}.{old}": f"model.layers.{index}.{new}"
            for old, new in _LAYER_TENSORS.items()
        }
    for new, old in names.items():
        tensor = state[f"{old}.weight"]
        if new.endswith("attn_q"):
            tensor = pairs_from_halves(tensor, config.num_attention_heads)
        if new.endswith("attn_k"):
            tensor = pairs_from_halves(tensor, config.num_key_value_heads)
        writer.add_tensor(f"{new}.weight", tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def source() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        vocab_size=280,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 20_000.0},
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def gguf_folder(
    source: LlamaForCausalLM, other_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "tiny.gguf", source, other_tokenizer)
    other_tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_gguf_file_is_read_as_it_was_written_and_as_transformers_reads_it(
    gguf_folder: Path, source: LlamaForCausalLM
) -> None:
    part = read_llama_gguf(gguf_folder / "tiny.gguf")
    assert part.read is not None
    weights = part.read()
    assert weights.head is not None
    theirs = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file="tiny.gguf").state_dict()
    ours = {f"model.{name}": tensor for name, tensor in weights.state.items()} | {
        "lm_head.weight": weights.head
    }
    expected = source.state_dict()
    assert ours.keys() == expected.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, expected[name]), name
        assert torch.equal(tensor, theirs[name]), name


def test_a_gguf_files_settings_are_the_sources(gguf_folder: Path, source: LlamaForCausalLM) -> None:
    settings = read_llama_gguf(gguf_folder / "tiny.gguf").text_config
    for key, value in settings.items():
        assert getattr(source.config, key) == value or key == "initializer_range", key


def test_gguf_files_that_cannot_be_built_upon_are_refused(
    gguf_folder: Path, source: LlamaForCausalLM, other_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    cases = {"qwen2": ({"arch": "qwen2"}, "a GGUF file of architecture qwen2, not llama")}
    cases["scaled"] = ({"llama__rope__scaling__type": "yarn"}, "scaled rotary positions or biases")
    cases["bare"] = ({}, "its vocabulary is not SmolLM2's")
    for name, (options, message) in cases.items():
        write_gguf(tmp_path / f"{name}.gguf", source, other_tokenizer, **options)
        with pytest.raises(ConfigError, match=message):
            read_llama_gguf(tmp_path / f"{name}.gguf")
    (tmp_path / "cut.gguf").write_bytes((gguf_folder / "tiny.gguf").read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"cut\.gguf: not a readable GGUF file"):
        read_llama_gguf(tmp_path / "cut.gguf")
