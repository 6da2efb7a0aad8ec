"""The files that describe a tokenizer, rewritten where new tokens stand in them and left as they
are elsewhere.

In: a folder with a tokenizer's files. Out: the same folder, the tokens in every file that lists ids
or names, so that plain `AutoTokenizer` reads the vocabulary that `tokenizer.json` describes.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.vocabulary import PlacedToken, Placement, Wanted, place_tokens
from smolvlm.protocols import JsonObject

TOKENIZER = "tokenizer.json"
_NAMES = ("additional_special_tokens", "extra_special_tokens")
"""Where files list special tokens that have no role of their own; version 5 of transformers writes
the latter."""


def add_to_files(folder: Path, wanted: Sequence[Wanted]) -> Placement:
    """Write tokens into a tokenizer's files; files that a folder lacks are left out.

    Raises:
        ConfigError: a text that cannot become a token.
    """
    text = (folder / TOKENIZER).read_text(encoding="utf-8")
    placement = place_tokens(text, wanted)
    if not placement.placed:
        return placement
    (folder / TOKENIZER).write_text(placement.tokenizer_json, encoding="utf-8")
    edits: dict[str, Callable[[JsonObject, Placement], JsonObject]] = {
        "tokenizer_config.json": _settings,
        "special_tokens_map.json": _special_names,
        "added_tokens.json": _added_ids,
        "vocab.json": _renamed_ids,
    }
    for name, edit in edits.items():
        path = folder / name
        if path.is_file():
            content = edit(read_object(path), placement)
            indent = None if name == "vocab.json" else 2
            path.write_text(
                json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    return placement


def _settings(content: JsonObject, placement: Placement) -> JsonObject:
    content = _special_names(content, placement)
    if "added_tokens_decoder" in content:
        entries = {str(token.token_id): _entry(token) for token in placement.placed}
        content["added_tokens_decoder"] |= entries
    if "vocab_size" in content:
        content["vocab_size"] = max(content["vocab_size"], placement.num_tokens)
    return content


def _entry(token: PlacedToken) -> JsonObject:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": token.token, **flags, "special": token.is_special}


def _special_names(content: JsonObject, placement: Placement) -> JsonObject:
    """Return a file's content without the reserved names that are gone."""
    gone = _replaced(placement.placed)
    for key in _NAMES:
        listed = content.get(key)
        if isinstance(listed, list):
            content[key] = [
                entry
                for entry in listed
                if (entry["content"] if isinstance(entry, dict) else entry) not in gone
            ]
    return content


def _added_ids(content: dict[str, int], placement: Placement) -> dict[str, int]:
    kept = {
        token: number
        for token, number in content.items()
        if token not in _replaced(placement.placed)
    }
    return kept | {token.token: token.token_id for token in placement.placed}


def _renamed_ids(content: dict[str, int], placement: Placement) -> dict[str, int]:
    names: Mapping[str | None, str] = {token.replaces: token.token for token in placement.placed}
    return {names.get(token, token): number for token, number in content.items()}


def _replaced(placed: Sequence[PlacedToken]) -> Collection[str | None]:
    return {token.replaces for token in placed if token.replaces is not None}
