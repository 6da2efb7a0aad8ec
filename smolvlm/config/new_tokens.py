"""The run file's `model.new_tokens`: texts that become one token each, and what their first embeddings are made of.

An entry is a text, or a mapping with a description of what the token means. Both are cut into pieces by the tokenizer
as it was, and the token begins at the mean of the pieces' rows.
"""

from collections import Counter
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_serializer
from pydantic_core import PydanticCustomError

from smolvlm.config.section import Section

NEW_TOKEN_ERRORS = ("empty_token", "white_space_around", "empty_description", "listed_twice")
"""Kinds of error that say themselves what is wrong."""


class NewToken(Section):
    """A text that becomes one token wherever it stands, in users' and assistants' turns alike."""

    token: str
    description: Annotated[str, Field(min_length=1)] | None = None
    """The token begins as the mean of these words' pieces; None takes the pieces of its own text."""

    @model_serializer(mode="wrap")
    def _as_written(self, as_mapping: Any) -> Any:
        return as_mapping(self) if self.description is not None else self.token

    @property
    def words(self) -> str:
        """What its first embedding is made of."""
        return self.token if self.description is None else self.description


def _from_text(entry: Any) -> Any:
    return {"token": entry} if isinstance(entry, str) else entry


def _check(tokens: list[NewToken]) -> list[NewToken]:
    for own in tokens:
        if not own.token.strip():
            raise PydanticCustomError("empty_token", "holds an empty token")
        if own.token != own.token.strip():
            what = "{token} begins or ends with white space, and text would have to hold it too"
            raise PydanticCustomError("white_space_around", what, {"token": repr(own.token)})
        if own.description is not None and not own.description.strip():
            raise PydanticCustomError("empty_description", "the description of {token} is empty", {"token": own.token})
    twice = [token for token, times in Counter(own.token for own in tokens).items() if times > 1]
    if twice:
        raise PydanticCustomError("listed_twice", "{token} stands in it twice", {"token": twice[0]})
    return tokens


NewTokens = Annotated[list[Annotated[NewToken, BeforeValidator(_from_text)]], AfterValidator(_check)]
