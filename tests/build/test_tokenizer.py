"""The rebuilt tokenizer: equal to the released file, with every special token at its number."""

import hashlib

import pytest
from tokenizers import Tokenizer

from smolvlm.build import tokenizer as tokenizer_module
from smolvlm.build.tokenizer import (
    TOKENIZER_JSON_SHA256,
    added_special_tokens,
    special_tokens_map,
    tokenizer_config,
    tokenizer_json,
)
from smolvlm.errors import ConfigError


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json())


def test_the_file_has_the_released_files_digest() -> None:
    assert hashlib.sha256(tokenizer_json().encode()).hexdigest() == TOKENIZER_JSON_SHA256


@pytest.mark.slow
def test_the_file_is_the_same_when_rebuilt_from_the_vocabulary() -> None:
    tokens, merges = tokenizer_module.read_gguf_vocabulary(tokenizer_module.language_model_gguf())
    assert (len(tokens), len(merges)) == (49_152, 48_900)
    assert tokenizer_module.render_tokenizer(tokens, merges) == tokenizer_json()


@pytest.mark.parametrize(
    ("token", "token_id"),
    [
        ("<|endoftext|>", 0),
        ("<|im_start|>", 1),
        ("<|im_end|>", 2),
        ("<empty_output>", 16),
        ("<global-img>", 49_152),
        ("<row_1_col_1>", 49_153),
        ("<row_1_col_6>", 49_158),
        ("<row_2_col_1>", 49_159),
        ("<row_6_col_6>", 49_188),
        ("<fake_token_around_image>", 49_189),
        ("<image>", 49_190),
        ("<|reserved_special_token_0|>", 49_191),
        ("<|reserved_special_token_87|>", 49_278),
        ("<end_of_utterance>", 49_279),
    ],
)
def test_special_tokens_have_their_numbers_and_are_never_split(
    tokenizer: Tokenizer, token: str, token_id: int
) -> None:
    assert tokenizer.token_to_id(token) == token_id
    assert tokenizer.encode(f"a{token}b").ids[1:-1] == [token_id]


def test_there_are_145_special_tokens_in_a_vocabulary_of_49280(tokenizer: Tokenizer) -> None:
    added = tokenizer.get_added_tokens_decoder()
    assert tokenizer.get_vocab_size() == 49_280
    assert sorted(added) == [*range(17), *range(49_152, 49_280)]
    assert all(token.special and not token.normalized for token in added.values())
    assert [added[token_id].content for token_id in range(49_152, 49_280)] == added_special_tokens()


def test_digits_stand_alone_and_leave_the_space_before_them(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("in 2024").tokens == ["in", "Ġ", "2", "0", "2", "4"]
    assert tokenizer.encode("a  2").tokens == ["a", "ĠĠ", "2"]


@pytest.mark.parametrize(
    "text", ["plain words", "  two\n\nlines\t", "naïve ½ 東京 🙂", "x = 3.14e-2;"]
)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_configuration_lists_every_special_token() -> None:
    config = tokenizer_config(processor_class="Idefics3Processor", chat_template="")
    decoder = config["added_tokens_decoder"]
    assert len(decoder) == 145
    assert decoder["49190"]["content"] == "<image>"
    assert decoder["4"]["content"] == "<reponame>"
    assert (
        config["eos_token"] == special_tokens_map()["eos_token"]["content"] == "<end_of_utterance>"
    )
    assert config["pad_token"] == special_tokens_map()["pad_token"]["content"] == "<|im_end|>"


def test_another_vocabulary_is_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "files").mkdir()
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    monkeypatch.setattr(
        tokenizer_module, "language_model_gguf", lambda: tmp_path / "files" / "other.gguf"
    )
    monkeypatch.setattr(
        tokenizer_module, "read_gguf_vocabulary", lambda _: ([f"t{i}" for i in range(20)], ["a b"])
    )
    with pytest.raises(ConfigError, match="the rebuilt tokenizer has SHA-256"):
        tokenizer_json()
