"""`data.image_splitting: overview`: kept by processor files, and shown by plain transformers with
the lines of docs/exporting.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from smolvlm.checkpoints.load import load_processor
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.media.tile_grid import grid_for
from smolvlm.media.tiles import make_tiles, pixel_values
from smolvlm.records import Grid, ImageRef, Turn
from tests.conftest import MODEL_TYPES

DOCS = Path(__file__).parents[2] / "docs" / "exporting.md"
PICTURE = Image.linear_gradient("L").resize((90, 40)).convert("RGB")
QUESTION = "What are the 2  shapes?"


@pytest.fixture(params=MODEL_TYPES)
def saved(request: pytest.FixtureRequest, checkpoint_folders: Any, tmp_path: Path) -> Path:
    """A processor as a run with an overview leaves it."""
    base = checkpoint_folders[request.param]
    media = read_prompt_settings(load_processor(str(base)), image_splitting="overview").media
    (tmp_path / "config.json").write_text((base / "config.json").read_text())
    save_processor(str(base), tmp_path, media=media)
    return tmp_path


def test_a_saved_processor_says_it_and_a_run_may_say_otherwise(saved: Path, tmp_path: Path) -> None:
    processor = load_processor(str(saved))
    pictures = read_prompt_settings(processor).media.pictures
    assert (pictures.image_splitting, pictures.longest_edge_px) == ("overview", 32)
    assert processor.image_processor.do_image_splitting is False
    unsplit = read_prompt_settings(processor, image_splitting=False)
    save_processor(str(saved), tmp_path / "again", media=unsplit.media)
    (tmp_path / "again" / "config.json").write_text((saved / "config.json").read_text())
    again = read_prompt_settings(load_processor(str(tmp_path / "again")))
    assert again.media.pictures.image_splitting is False


def test_transformers_writes_the_key_again(saved: Path, tmp_path: Path) -> None:
    AutoProcessor.from_pretrained(saved).save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "config.json").write_text((saved / "config.json").read_text())
    again = read_prompt_settings(load_processor(str(tmp_path / "again")))
    assert again.media.pictures.image_splitting == "overview"


def test_plain_transformers_shows_it_with_the_lines_of_the_docs(saved: Path) -> None:
    [code] = re.findall(r"```python\n(def one_tile.*?)```", DOCS.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    processor: Any = AutoProcessor.from_pretrained(saved)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    inputs = names["one_tile_and_overview"](processor, text, PICTURE)
    prompt = read_prompt_settings(load_processor(str(saved)))
    pictures = prompt.media.pictures
    turns = [Turn(role="user", blocks=(ImageRef(data=b""), QUESTION))]
    grid = grid_for(*PICTURE.size, pictures)
    assert grid == Grid(rows=1, columns=1)
    ours = prompt.encoder().encode_turns(turns, layouts=[grid], add_generation_prompt=True)
    assert inputs["input_ids"][0].tolist() == ours.input_ids.tolist()
    images = processor.image_processor
    tiles = pixel_values(
        make_tiles(PICTURE, pictures),
        mean=images.image_mean,
        std=images.image_std,
        rescale_factor=images.rescale_factor,
    )
    assert tiles.shape == (2, 3, 32, 32)
    torch.testing.assert_close(
        inputs["pixel_values"], torch.from_numpy(tiles)[None], rtol=0, atol=1e-6
    )
