"""One tile and its overview: what is made of the stock processor's inputs is what is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.inspect.stock_inputs import stock_inputs
from smolvlm.media.images import open_rgb
from smolvlm.media.layout import layout_of
from smolvlm.media.tiles import make_tiles, pixel_values
from smolvlm.records import Conversation, Grid, ImageRef, Turn, VideoRef
from tests.conftest import MODEL_TYPES


def row(*blocks: Any) -> Conversation:
    turns = (Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=("Yes.",)))
    return Conversation(turns=turns, where="rows:1", source="rows")


@pytest.fixture
def blocks(photos: dict[str, Path]) -> dict[str, tuple[Any, ...]]:
    coffee, rocket = (ImageRef(path=photos[name]) for name in ("coffee", "rocket"))
    clip = VideoRef(frames=(coffee, coffee, coffee))
    return {
        "picture": (coffee, "What?"),
        "pictures": ("One:", rocket, "two:", coffee),
        "clip_between": (coffee, clip, "and", rocket, "What?"),
    }


@pytest.mark.parametrize("kind", ["picture", "pictures", "clip_between"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_tile_stands_before_each_pictures_overview(
    checkpoint_folders: Any, blocks: Any, model_type: ModelType, kind: str
) -> None:
    processor: Any = AutoProcessor.from_pretrained(checkpoint_folders[model_type])
    prompt = read_prompt_settings(processor, image_splitting="overview")
    conversation = row(*blocks[kind])
    layouts = [layout_of(medium, prompt.media) for medium in conversation.media]
    ours = prompt.encoder().encode_turns(conversation.turns, layouts=layouts)
    inputs = stock_inputs(processor, conversation, layouts=layouts, settings=prompt.media)
    assert inputs["input_ids"][0].tolist() == ours.input_ids.tolist()
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    num_tiles = sum(layout.num_tiles for layout in layouts)
    assert inputs["pixel_values"].shape[:2] == (1, num_tiles)
    assert all(layout == Grid(rows=1, columns=1) for layout in layouts if isinstance(layout, Grid))
    first = next(medium for medium in conversation.media if isinstance(medium, ImageRef))
    images = processor.image_processor
    tiles = pixel_values(
        make_tiles(open_rgb(first), prompt.media.pictures),
        mean=images.image_mean,
        std=images.image_std,
        rescale_factor=images.rescale_factor,
    )
    torch.testing.assert_close(
        inputs["pixel_values"][0, :2], torch.from_numpy(tiles), rtol=0, atol=1e-6
    )


def test_frames_are_one_tile_as_ever(checkpoint_folders: Any, blocks: Any) -> None:
    processor: Any = AutoProcessor.from_pretrained(checkpoint_folders["smolvlm"])
    prompt = read_prompt_settings(processor, image_splitting="overview")
    unsplit = replace(prompt.media.pictures, image_splitting=False)
    clip = next(medium for medium in blocks["clip_between"] if isinstance(medium, VideoRef))
    layouts = [layout_of(clip, prompt.media)]
    found = [
        stock_inputs(processor, row(clip, "What?"), layouts=layouts, settings=media)
        for media in (prompt.media, replace(prompt.media, pictures=unsplit))
    ]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
