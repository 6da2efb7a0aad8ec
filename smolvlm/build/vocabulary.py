"""The tokenizer of a built model: SmolVLM's own where the language model is SmolLM2, else the
model's, and more tokens.

In: the `tokenizer.json` beside a language model's weights, or the vocabulary of its GGUF file. Out:
the files of the processor's tokenizer and the ids that a model's configuration names. A SmolLM2
vocabulary gives the released SmolVLM tokenizer to the byte (compared by digest). Any other gets the
same 128 tokens, in the same order, behind its last one, and `<|im_start|>` where it has none;
nothing that it already has is added twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from smolvlm.build.tokenizer import (
    TEXT_VOCABULARY_SIZE,
    TOKENIZER_JSON_SHA256,
    VOCABULARY_SIZE,
    PromptIds,
    added_special_tokens,
    render_tokenizer,
    special_tokens_map,
    tokenizer_config,
)
from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.errors import ConfigError

START, END, IMAGE = "<|im_start|>", "<end_of_utterance>", "<image>"
_SPARE = "<|reserved_special_token_0|>"
_KINDS = ("BPE", "Unigram", "WordPiece", "WordLevel")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """The tokens of a built model, and where its new rows of embeddings are."""

    ids: PromptIds
    first_new_id: int
    """Ids from here on ..."""
    end_new_id: int
    """... up to here, exclusive, are new to the language model."""
    tokenizer_json: str
    tokenizer_config: Mapping[str, Any]
    """Without `processor_class` and `chat_template`."""
    special_tokens_map: Mapping[str, Any]


def smolvlm_vocabulary(
    text: str, *, own_size: int = TEXT_VOCABULARY_SIZE, num_rows: int = TEXT_VOCABULARY_SIZE
) -> Vocabulary:
    """Return SmolVLM's own tokenizer.

    Args:
        text: of its `tokenizer.json`.
        own_size: how many of the tokens the language model knows.
        num_rows: of its embeddings.
    """
    config = tokenizer_config(processor_class="", chat_template="", text=text)
    return Vocabulary(
        ids=PromptIds(vocabulary_size=max(VOCABULARY_SIZE, num_rows)),
        first_new_id=own_size,
        end_new_id=VOCABULARY_SIZE,
        tokenizer_json=text,
        tokenizer_config=config,
        special_tokens_map=special_tokens_map(),
    )


def smollm2_tokenizer(tokens: list[str], merges: list[str]) -> str | None:
    """Return SmolVLM's `tokenizer.json` if these are SmolLM2's tokens and merges, else None."""
    if len(tokens) != TEXT_VOCABULARY_SIZE:
        return None
    text = render_tokenizer(tokens, merges)
    return text if hashlib.sha256(text.encode()).hexdigest() == TOKENIZER_JSON_SHA256 else None


def read_vocabulary(folder: Path, *, num_rows: int, max_positions: int) -> Vocabulary:
    """Make the tokenizer of a model built on a folder's language model.

    Args:
        folder: holds `tokenizer.json`; `tokenizer_config.json` is asked for the padding token.
        num_rows: of the language model's embeddings.
        max_positions: the context, in tokens.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it has more tokens than the model
            has rows.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(
            "no tokenizer.json here",
            where=str(folder),
            fix="download it with the weights; of a tokenizer.model alone, make one: "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
        )
    document = _read_document(path)
    text = smollm2_tokenizer(*_vocabulary_of(document))
    if text is not None and num_rows >= TEXT_VOCABULARY_SIZE:
        added = sum(token["id"] >= TEXT_VOCABULARY_SIZE for token in document["added_tokens"])
        own_size = min(TEXT_VOCABULARY_SIZE + added, VOCABULARY_SIZE)
        return smolvlm_vocabulary(text, own_size=own_size, num_rows=num_rows)
    document.update(
        post_processor=None, truncation=None, padding=None
    )  # a prompt begins with START alone
    tokenizer = Tokenizer.from_str(json.dumps(document))
    return _extended(tokenizer, folder, num_rows=num_rows, max_positions=max_positions)


def _read_document(path: Path) -> dict[str, Any]:
    fix = "download the file again"
    document = read_object(path)
    model = document.get("model")
    if not isinstance(model, dict) or model.get("type") not in _KINDS:
        raise ConfigError(
            f"not a tokenizer of a kind known here ({', '.join(_KINDS)})", where=str(path), fix=fix
        )
    return document


def _vocabulary_of(document: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return a BPE's (tokens by id, merges as "left right"); nothing for any other kind."""
    model = document["model"]
    if model.get("type") != "BPE":
        return [], []
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


def _extended(
    tokenizer: Tokenizer, folder: Path, *, num_rows: int, max_positions: int
) -> Vocabulary:
    own_size = tokenizer.get_vocab_size()
    if own_size > num_rows:
        raise ConfigError(
            f"the tokenizer has {own_size:,} tokens, the language model {num_rows:,} rows of "
            "embeddings",
            where=str(folder),
            fix="use the tokenizer that belongs to the weights",
        )
    wanted = [START, *added_special_tokens()]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in wanted]
    )
    size = tokenizer.get_vocab_size()
    ids = {token: _id_of(tokenizer, token) for token in wanted}
    highest = max(ids.values())
    if highest >= size:
        fix = "use a tokenizer whose ids have no holes"
        raise ConfigError(
            f"its ids have holes: {size:,} tokens, a highest id of {highest:,}",
            where=str(folder),
            fix=fix,
        )
    pad = _pad_token(folder, tokenizer)
    names = {"bos_token": START, "eos_token": END, "pad_token": pad}
    added = tokenizer.get_added_tokens_decoder()
    settings = {
        "added_tokens_decoder": {
            str(token_id): {"content": token.content, **_flags(token)}
            for token_id, token in sorted(added.items())
        },
        "additional_special_tokens": ["<fake_token_around_image>", IMAGE, END],
        **names,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "truncation_side": "left",
    }
    return Vocabulary(
        ids=PromptIds(
            vocabulary_size=max(num_rows, size),
            image=ids[IMAGE],
            start=ids[START],
            end=ids[END],
            pad=_id_of(tokenizer, pad),
        ),
        first_new_id=own_size,
        end_new_id=size,
        tokenizer_json=tokenizer.to_str(pretty=True),
        tokenizer_config=settings,
        special_tokens_map={
            **names,
            "additional_special_tokens": settings["additional_special_tokens"],
        },
    )


def _id_of(tokenizer: Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


def _pad_token(folder: Path, tokenizer: Tokenizer) -> str:
    """Return the padding or end token to fill up batches; any would do, since it is masked."""
    path = folder / "tokenizer_config.json"
    content = read_object(path) if path.is_file() else {}
    for role in ("pad_token", "eos_token"):
        entry = content.get(role)
        token = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(token, str) and tokenizer.token_to_id(token) is not None:
            return token
    return _SPARE


def _flags(token: AddedToken) -> dict[str, bool]:
    return {
        "lstrip": token.lstrip,
        "normalized": token.normalized,
        "rstrip": token.rstrip,
        "single_word": token.single_word,
        "special": token.special,
    }
