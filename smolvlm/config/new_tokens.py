"""The run file's `model.new_tokens`: texts that become one token each, and what their first
embeddings are made of.

An entry is a text, or a mapping with a description of what the token means. Both are cut into
pieces by the tokenizer as it was, and the token begins at the mean of the pieces' rows.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import PydanticCustomError

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import Section

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

WORDS = "must be a list of texts, or of mappings with `token` and `description`"
"""What the setting must be."""


class NewToken(Section):
    """A text that becomes one token wherever it stands, in users' and assistants' turns alike."""

    NOUN = "a new token"

    token: str
    description: Annotated[str, Field(min_length=1)] | None = None
    """The token begins as the mean of these words' pieces; None takes the pieces of its own
    text."""

    @model_serializer(mode="wrap")
    def _as_written(self, as_mapping: SerializerFunctionWrapHandler) -> object:
        return as_mapping(self) if self.description is not None else self.token

    @property
    def words(self) -> str:
        """What its first embedding is made of."""
        return self.token if self.description is None else self.description


def _from_text(entry: object) -> object:
    return {"token": entry} if isinstance(entry, str) else entry


def _check(tokens: list[NewToken]) -> list[NewToken]:
    for new in tokens:
        if not new.token.strip():
            raise PydanticCustomError("empty_token", "holds an empty token")
        if new.token != new.token.strip():
            what = "{token} begins or ends with white space, and text would have to hold it too"
            raise PydanticCustomError("white_space_around", what, {"token": repr(new.token)})
        if new.description is not None and not new.description.strip():
            raise PydanticCustomError(
                "empty_description", "the description of {token} is empty", {"token": new.token}
            )
    twice = [token for token, times in Counter(new.token for new in tokens).items() if times > 1]
    if twice:
        raise PydanticCustomError("listed_twice", "{token} stands in it twice", {"token": twice[0]})
    return tokens


NewTokens = Annotated[
    list[Annotated[NewToken, BeforeValidator(_from_text)]], AfterValidator(_check)
]


def new_token_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield token-row settings without effect, and new tokens that nothing would train or save."""
    train, names = config.train, "model.new_tokens"
    is_set = {
        "new_tokens_lr": train.new_tokens_lr is not None,
        "trainable_tokens": bool(train.trainable_tokens),
    }
    if config.trains_language_whole:
        for name in (name for name, is_given in is_set.items() if is_given):
            what = "has no effect: the language model trains in full, and every row with it"
            fix = "take it out, or write `adapters: {language: lora}` (or frozen)"
            yield Problem(
                key=f"train.{name}", value=shown_value(getattr(train, name)), what=what, fix=fix
            )
        frozen = [name for name in ("embeddings", "output_head") if getattr(config.freeze, name)]
        if config.model.new_tokens and frozen:
            what = "their rows would stay as they begin: freeze." + " and freeze.".join(frozen)
            fix = "write `adapters: {language: lora}`, which trains these rows by themselves"
            yield Problem(key=names, what=what, fix=fix)
        return
    if not config.model.new_tokens and not train.trainable_tokens:
        if is_set["new_tokens_lr"]:
            value = shown_value(train.new_tokens_lr)
            yield Problem(
                key="train.new_tokens_lr",
                value=value,
                what=f"has no effect without {names}",
                fix="take it out",
            )
    elif not config.token_rows_lr:
        what = "their rows would neither train nor be saved: train.new_tokens_lr is 0"
        key = names if config.model.new_tokens else "train.trainable_tokens"
        yield Problem(key=key, what=what, fix="set train.new_tokens_lr above 0, or take it out")
