"""New tokens in a tokenizer: which ids they take, and how its description (tokenizer.json) then
reads.

In: a tokenizer's JSON text and the texts to add. Out: a `Placement`. Reserved ids
(`<|reserved_special_token_N|>`) go first, by number: their entry is renamed, and neither model nor
vocabulary grows. What is left over goes behind the last id. New tokens are ordinary added tokens,
not special ones: text is read with special tokens switched off (`encoding.tokens`), so a literal
`<image>` stays text while a new token is one id wherever it stands, and answers are decoded without
special tokens, which keeps new ones. White space around them is left as it is written.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from smolvlm.datasets.encoding.chat import SPEAKERS
from smolvlm.errors import ConfigError
from smolvlm.protocols import JsonObject

RESERVED = re.compile(r"<\|reserved_special_token_(\d+)\|>")
_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedToken:
    """A token that a vocabulary gains."""

    token: str
    token_id: int
    replaces: str | None
    """The reserved token whose id it takes; None stands behind the last id."""
    pieces: tuple[int, ...]
    """Ids of what its first embedding is made of, in the vocabulary as it was."""
    is_special: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where texts stand in a vocabulary that has them all."""

    placed: tuple[PlacedToken, ...]
    """Those that it lacked."""
    ids: Mapping[str, int]
    """Of all of them, in the order asked."""
    num_tokens: int
    """The last id of the vocabulary, and one more; a model's matrices may have more rows."""
    tokenizer_json: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A text that is to be a token."""

    token: str
    words: str
    """What its first embedding is made of."""
    is_special: bool = False


def place_tokens(tokenizer_json: str, wanted: Sequence[Wanted]) -> Placement:
    """Give each text an id.

    Args:
        tokenizer_json: the tokenizer as it is.
        wanted: distinct texts. One that is an added token of the same kind already keeps its id.

    Raises:
        ConfigError: a text that has an id of another kind already, that the prompt itself is made
            of, or that the tokenizer could not write; or words without a token.
    """
    return _place_tokens(tokenizer_json, tuple(wanted))


@lru_cache(
    maxsize=4
)  # a run asks when it plans, when it loads, and with every checkpoint that it saves
def _place_tokens(tokenizer_json: str, wanted: tuple[Wanted, ...]) -> Placement:
    content = json.loads(tokenizer_json)
    added: list[JsonObject] = content["added_tokens"]
    known = {entry["content"]: entry for entry in added}
    reader = Tokenizer.from_str(tokenizer_json)
    reader.encode_special_tokens = True
    free = _reserved(added)
    num_tokens = max(*content["model"]["vocab"].values(), *(entry["id"] for entry in added)) + 1
    placed: list[PlacedToken] = []
    for new in wanted:
        if new.token in known and known[new.token]["special"] == new.is_special:
            continue
        _check_free(new, known, reader)
        entry = free.pop(0) if free and not new.is_special else None
        placed.append(
            PlacedToken(
                token=new.token,
                token_id=num_tokens if entry is None else entry["id"],
                replaces=None if entry is None else entry["content"],
                pieces=_pieces(new, reader),
                is_special=new.is_special,
            )
        )
        num_tokens += entry is None
    text = tokenizer_json if not placed else with_placed(tokenizer_json, placed)
    ids = _read_back(text, wanted)
    return Placement(placed=tuple(placed), ids=ids, num_tokens=num_tokens, tokenizer_json=text)


def with_placed(tokenizer_json: str, placed: Sequence[PlacedToken]) -> str:
    """Return the tokenizer's JSON text with new tokens in it; everything else as it was written."""
    content = json.loads(tokenizer_json)
    added: list[JsonObject] = content["added_tokens"]
    vocabulary: dict[str, int] = content["model"]["vocab"]
    for token in placed:
        entry = {
            "id": token.token_id,
            "content": token.token,
            **_FLAGS,
            "special": token.is_special,
        }
        place = next(
            (number for number, old in enumerate(added) if old["id"] == token.token_id), len(added)
        )
        added[place : place + 1] = [entry]
    renamed = {token.replaces: token.token for token in placed if token.replaces in vocabulary}
    if renamed:
        content["model"]["vocab"] = {
            renamed.get(token, token): number for token, number in vocabulary.items()
        }
    if "\n" in tokenizer_json[:8]:
        return json.dumps(content, ensure_ascii=False, indent=2) + (
            "\n" if tokenizer_json.endswith("\n") else ""
        )
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _reserved(added: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the entries of reserved tokens, by their number."""
    reserved = {
        int(match[1]): entry for entry in added if (match := RESERVED.fullmatch(entry["content"]))
    }
    return [reserved[number] for number in sorted(reserved)]


def _check_free(wanted: Wanted, known: JsonObject, reader: Tokenizer) -> None:
    token = wanted.token
    if token in known:
        kind = "a special token" if known[token]["special"] else "an ordinary token"
        fix = "take it out of the new tokens; `train.trainable_tokens` lets its row train"
        raise ConfigError(f"{token} is {kind} of the vocabulary already", fix=fix)
    inside = next(
        (name for name, entry in known.items() if entry["special"] and name in token), None
    )
    if inside is not None:
        raise ConfigError(
            f"the new token {token} holds the special token {inside}", fix="rename it"
        )
    if len(reader.encode(token, add_special_tokens=False).ids) == 1 and not wanted.is_special:
        raise ConfigError(f"{token} is one token already", fix="take it out of the new tokens")
    if token.startswith(": ") or any(token in f"{speaker.capitalize()}: " for speaker in SPEAKERS):
        raise ConfigError(f"the prompt itself is written with {token}", fix="choose another text")


def _pieces(wanted: Wanted, reader: Tokenizer) -> tuple[int, ...]:
    pieces = tuple(reader.encode(wanted.words, add_special_tokens=False).ids)
    if not pieces:
        fix = "give it a `description` that the vocabulary can write"
        raise ConfigError(f"nothing in {wanted.words!r} has a token to begin from", fix=fix)
    return pieces


def _read_back(tokenizer_json: str, wanted: Sequence[Wanted]) -> dict[str, int]:
    """Return each text's id, after checking that the tokenizer reads and writes it as one."""
    if not wanted:
        return {}
    tokenizer = Tokenizer.from_str(tokenizer_json)
    ids: dict[str, int] = {}
    for new in wanted:
        pieces = tokenizer.encode(new.token, add_special_tokens=False).ids
        written = tokenizer.decode(pieces, skip_special_tokens=False)
        if len(pieces) != 1 or written != new.token:
            # a byte-level decoder takes a text of Latin letters with accents alone for bytes
            what = f"the tokenizer would write {new.token!r} as {written!r}"
            raise ConfigError(what, fix="put it in brackets: `<|name|>` in plain letters")
        ids[new.token] = pieces[0]
    return ids
