"""Samples of real pictures with the tiny checkpoint's prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.inspect.data import Decode, inspect_example, token_texts
from smolvlm.inspect.records import InspectedSample
from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.tile_grid import grid_for
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Conversation, Example, ImageRef, Sample, Turn

MakeExample = Callable[..., Example]
SCRIPT = "<script>alert(1)</script>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A question about pictures, and its answer."""

    question: str
    answer: str
    images: tuple[ImageRef, ...] = ()


@pytest.fixture(scope="session")
def decode(processors: dict[str, Any]) -> Decode:
    return token_texts(processors["smolvlm"].tokenizer.backend_tokenizer)


@pytest.fixture(scope="session")
def make_example(prompt: PromptSettings) -> MakeExample:
    """Encodes rows as one sample: several become a tree."""

    def make(*rows: Row) -> Example:
        conversations = [
            Conversation(
                turns=(
                    Turn(role="user", blocks=(*row.images, row.question)),
                    Turn(role="assistant", blocks=(row.answer,)),
                ),
                where=f"rows.jsonl:{number}",
                source="rows",
            )
            for number, row in enumerate(rows, start=1)
        ]
        grids = [
            [grid_for(*header_size(image), prompt.media.pictures) for image in conversation.media]
            for conversation in conversations
        ]
        return prompt.encoder().encode(Sample(conversations=tuple(conversations)), layouts=grids)

    return make


@pytest.fixture(scope="session")
def tree(make_example: MakeExample, photos: dict[str, Path]) -> Example:
    """Two questions about one picture of 3 x 4 tiles; one of them is hostile."""
    coffee = ImageRef(path=photos["coffee"])
    return make_example(
        Row(question="What is in the cup?", answer="Coffee.", images=(coffee,)),
        Row(question=f"Is [bold]this{SCRIPT} it? \x1b[31m", answer="Yes.", images=(coffee,)),
    )


@pytest.fixture(scope="session")
def inspect(prompt: PromptSettings, decode: Decode) -> Callable[[Example], InspectedSample]:
    """Lays a sample out, with its pixels."""

    def make(example: Example) -> InspectedSample:
        tiles = [make_tiles(open_rgb(image), prompt.media.pictures) for image in example.media]
        return inspect_example(
            example, decode=decode, image_token_id=prompt.tokens.image, tiles=tiles
        )

    return make


@pytest.fixture(scope="session")
def row_type() -> type[Row]:
    """`Row`, for tests to make."""
    return Row
