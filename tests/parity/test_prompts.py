"""Ids equal those of the stock processor, for any conversation and any pictures, with both model
types.

The stock side writes the prompt out as text, `<image>` by `<image>`, and tokenizes it at once; ours
splices ids. Its tokenizer is the one that `load_processor` gives, which splits digits as
tokenizer.json says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm.build.processor import ModelType
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.media.tile_grid import grid_for
from smolvlm.records import ImageRef, Turn

MakeTurns = Callable[..., st.SearchStrategy[tuple[Turn, ...]]]
SIZES = ((1, 1), (2, 300), (300, 2), (33, 31), (64, 64), (128, 96), (97, 128), (150, 40), (31, 200))


def picture(number: int) -> ImageRef:
    """A name that says its size; no file is ever opened."""
    width, height = SIZES[number] if number < len(SIZES) else (number // 37 + 1, number % 53 + 1)
    return ImageRef(path=Path(f"{width}x{height}"))


def size_of(image: ImageRef) -> tuple[int, int]:
    width, height = image.name.split("x")
    return int(width), int(height)


def message(turn: Turn) -> dict[str, Any]:
    content = [
        {"type": "text", "text": block} if isinstance(block, str) else {"type": "image"}
        for block in turn.blocks
    ]
    return {"role": turn.role, "content": content}


def images_of(turns: Sequence[Turn]) -> list[ImageRef]:
    return [block for turn in turns for block in turn.blocks if isinstance(block, ImageRef)]


def stock_ids(
    processor: Any, turns: Sequence[Turn], *, asks: bool, **picture_settings: Any
) -> list[int]:
    text = processor.apply_chat_template(
        [message(turn) for turn in turns], add_generation_prompt=asks
    )
    pictures = [Image.new("RGB", size_of(image)) for image in images_of(turns)]
    if not pictures:
        return processor(text=text)["input_ids"][0]
    return processor(text=text, images=[pictures], **picture_settings)["input_ids"][0]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two that are compared: a stock processor, and what was read from it."""

    processor: Any
    prompt: PromptSettings

    def assert_equal(
        self, turns: Sequence[Turn], *, splits: bool, edge: int, asks: bool = False
    ) -> None:
        tiles = replace(self.prompt.media.pictures, image_splitting=splits, longest_edge_px=edge)
        grids = [grid_for(*size_of(image), tiles) for image in images_of(turns)]
        ours = self.prompt.encoder().encode_turns(turns, layouts=grids, add_generation_prompt=asks)
        theirs = stock_ids(
            self.processor, turns, asks=asks, do_image_splitting=splits, size={"longest_edge": edge}
        )
        assert ours.input_ids.tolist() == list(theirs)
        assert ours.input_ids.dtype == np.int32


@pytest.fixture(scope="module", params=["smolvlm", "idefics3"])
def pair(
    processors: dict[ModelType, Any],
    prompts: dict[ModelType, PromptSettings],
    request: pytest.FixtureRequest,
) -> Pair:
    return Pair(processor=processors[request.param], prompt=prompts[request.param])


@settings(deadline=None, max_examples=50)
@given(
    data=st.data(),
    splits=st.booleans(),
    edge=st.sampled_from((32, 64, 128, 192)),
    asks=st.booleans(),
)
def test_ids_are_the_processors(
    pair: Pair, random_turns: MakeTurns, data: st.DataObject, splits: bool, edge: int, asks: bool
) -> None:
    pair.assert_equal(
        data.draw(random_turns(make_image=picture)), splits=splits, edge=edge, asks=asks
    )


def user(*blocks: str | ImageRef) -> Turn:
    return Turn(role="user", blocks=blocks)


def assistant(*blocks: str | ImageRef) -> Turn:
    return Turn(role="assistant", blocks=blocks)


A, B = picture(6), picture(1)
CONVERSATIONS = {
    "picture first": [user(A, "What?"), assistant("A  12")],
    "text first": [user("What?", A), assistant("12")],
    "pictures between texts": [user("One", A, "two ", B, " three", A), assistant(" ok ")],
    "pictures side by side": [user(A, B), assistant("\n")],
    "pictures in later turns": [
        user("Hi"),
        assistant("Ho"),
        user(A, "\n"),
        assistant("  "),
        user("so", B),
        assistant("é"),
    ],
    "a system turn": [Turn(role="system", blocks=("You are  7 cats.",)), user(A), assistant("²")],
    "a picture in an answer": [
        user("Draw 1"),
        assistant("Here: ", A, "\n\n 2"),
        user("More"),
        assistant(B),
    ],
    "control characters": [user("a\x04\x06b\0"), assistant("\x1d\r\n")],
    "nothing said": [user(""), assistant("")],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("splits", [True, False])
def test_shapes_of_conversations(pair: Pair, name: str, splits: bool) -> None:
    pair.assert_equal(CONVERSATIONS[name], splits=splits, edge=128)
    pair.assert_equal(CONVERSATIONS[name], splits=splits, edge=128, asks=True)


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 700), height=st.integers(1, 700), tiles=st.integers(1, 6))
@example(width=1, height=1, tiles=6)
@example(width=700, height=1, tiles=6)
def test_any_size_of_picture(pair: Pair, width: int, height: int, tiles: int) -> None:
    turns = [user(ImageRef(path=Path(f"{width}x{height}")), "What?"), assistant("yes")]
    pair.assert_equal(turns, splits=True, edge=32 * tiles)
