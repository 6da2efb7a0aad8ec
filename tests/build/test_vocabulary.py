"""The tokenizer of a built model: SmolVLM's for SmolLM2's vocabulary, the model's own with tokens
behind it else."""

import hashlib
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from smolvlm.build.tokenizer import (
    TOKENIZER_JSON_SHA256,
    PromptIds,
    added_special_tokens,
    tokenizer_json,
)
from smolvlm.build.vocabulary import read_vocabulary
from smolvlm.errors import ConfigError

WANTED = ["<|im_start|>", *added_special_tokens()]


def test_smollm2s_becomes_smolvlms_to_the_byte(smollm2: Path) -> None:
    found = read_vocabulary(smollm2, num_rows=49_152, max_positions=8192)
    assert hashlib.sha256(found.tokenizer_json.encode()).hexdigest() == TOKENIZER_JSON_SHA256
    assert found.ids == PromptIds()
    assert (found.first_new_id, found.end_new_id) == (49_152, 49_280)


def test_any_other_gets_the_tokens_behind_its_own(
    other_llama: Path, other_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    found = read_vocabulary(other_llama, num_rows=288, max_positions=512)
    (tmp_path / "tokenizer.json").write_text(found.tokenizer_json)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(found.tokenizer_config)))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(dict(found.special_tokens_map)))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_tokens_to_ids(WANTED) == list(range(280, 409))
    assert found.ids == PromptIds(
        vocabulary_size=409,
        image=tokenizer.convert_tokens_to_ids("<image>"),
        start=280,
        end=408,
        pad=1,
    )
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (280, 408, 1)
    plain = other_tokenizer.encode("what is it? it is a cat.", add_special_tokens=False).ids
    assert tokenizer("what is it? it is a cat.").input_ids == plain, (
        "nothing put in front: the prompt has its own start"
    )
    assert tokenizer("a<image>b").input_ids[1:-1] == [found.ids.image]


def test_tokens_that_are_there_already_are_not_added_again(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    found = read_vocabulary(tmp_path, num_rows=49_280, max_positions=8192)
    assert (found.first_new_id, found.end_new_id) == (49_280, 49_280)
    assert (found.ids.image, found.ids.start, found.ids.end) == (49_190, 1, 49_279)


def test_what_is_no_fitting_tokenizer_is_refused(other_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"the tokenizer has 280 tokens, the language model 200 rows of embeddings",
    ):
        read_vocabulary(other_llama, num_rows=200, max_positions=512)
    with pytest.raises(
        ConfigError, match=r"no tokenizer.json here\n  fix: download it with the weights"
    ):
        read_vocabulary(tmp_path, num_rows=300, max_positions=512)
    (tmp_path / "tokenizer.json").write_text("[")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: not JSON"):
        read_vocabulary(tmp_path, num_rows=300, max_positions=512)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Trie"}}')
    with pytest.raises(ConfigError, match="not a tokenizer of a kind known here"):
        read_vocabulary(tmp_path, num_rows=300, max_positions=512)
