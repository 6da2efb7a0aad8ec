"""What a run saves loads in plain `AutoModelForImageTextToText` and `AutoProcessor`, equal to the
last bit.

No code of ours stands between the folder and the user: same logits on a prompt with a picture, same
class names, same ids as in training (digits after spaces and numerals included), and pictures cut
as the run cut them.
"""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.media.tile_grid import grid_for
from smolvlm.media.tiles import make_tiles
from smolvlm.model.vision import normalize_pixels
from smolvlm.records import ImageRef, Turn
from tests.media_settings import media_settings

QUESTION = "a  2 ½ and\n\n  37: what?"
PICTURE = Image.linear_gradient("L").resize((70, 40)).convert("RGB")
STOCK_CLASSES = {
    "smolvlm": ("SmolVLMForConditionalGeneration", "SmolVLMProcessor"),
    "idefics3": ("Idefics3ForConditionalGeneration", "Idefics3Processor"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """A trained model in memory, and the folder that it was saved to."""

    model_type: str
    model: Any
    prompt: PromptSettings
    """What the run encoded with."""
    base: Path
    folder: Path


@pytest.fixture(scope="module", params=STOCK_CLASSES)
def saved(request: pytest.FixtureRequest, checkpoint_folders, prompts, tmp_path_factory) -> Saved:
    """One step of training with other picture settings than the base's, saved as a run saves it."""
    base, prompt = checkpoint_folders[request.param], prompts[request.param]
    checkpoint = load_checkpoint(str(base))
    prompt = replace(
        prompt,
        media=replace(prompt.media, pictures=replace(prompt.media.pictures, longest_edge_px=96)),
    )
    model = checkpoint.model.train()
    inputs = plain_inputs(AutoProcessor.from_pretrained(base))
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    folder = tmp_path_factory.mktemp("run") / "saved"
    model.save_pretrained(folder)
    save_processor(str(base), folder, media=prompt.media)
    return Saved(
        model_type=request.param, model=model.eval(), prompt=prompt, base=base, folder=folder
    )


def plain_inputs(processor: Any) -> Any:
    """What a user of the stock classes writes."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    return processor(text=text, images=[[PICTURE]], return_tensors="pt")


def test_the_config_names_the_stock_classes(saved: Saved) -> None:
    model_class, processor_class = STOCK_CLASSES[saved.model_type]
    config = json.loads((saved.folder / "config.json").read_text())
    assert config["architectures"] == [model_class]
    assert config["model_type"] == saved.model_type
    model = AutoModelForImageTextToText.from_pretrained(saved.folder)
    assert type(model).__name__ == model_class
    assert type(model).__module__.startswith("transformers.")
    assert type(AutoProcessor.from_pretrained(saved.folder)).__name__ == processor_class


def test_logits_on_a_picture_are_equal_to_the_last_bit(saved: Saved) -> None:
    inputs = plain_inputs(AutoProcessor.from_pretrained(saved.folder))
    stock = AutoModelForImageTextToText.from_pretrained(saved.folder, dtype=torch.float32).eval()
    before = AutoModelForImageTextToText.from_pretrained(saved.base, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = stock(**inputs).logits
        assert torch.equal(logits, saved.model(**inputs).logits)
        assert not torch.equal(logits, before(**inputs).logits), "training changed nothing"


def test_it_generates_the_same_tokens(saved: Saved) -> None:
    inputs = plain_inputs(AutoProcessor.from_pretrained(saved.folder))
    stock = AutoModelForImageTextToText.from_pretrained(saved.folder, dtype=torch.float32).eval()
    wanted = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    assert torch.equal(stock.generate(**inputs, **wanted), saved.model.generate(**inputs, **wanted))


def test_a_plain_processor_gives_the_ids_of_training(saved: Saved) -> None:
    turns = [Turn(role="user", blocks=(ImageRef(data=b""), QUESTION))]
    grid = grid_for(*PICTURE.size, saved.prompt.media.pictures)
    ours = saved.prompt.encoder().encode_turns(turns, layouts=[grid], add_generation_prompt=True)
    ids = plain_inputs(AutoProcessor.from_pretrained(saved.folder))["input_ids"][0]
    assert ids.tolist() == ours.input_ids.tolist()


def test_a_plain_processor_gives_the_pixels_of_training(saved: Saved) -> None:
    """Up to one rounding: the processor folds the rescaling into mean and std."""
    tiles = torch.from_numpy(make_tiles(PICTURE, saved.prompt.media.pictures))
    ours = normalize_pixels(tiles, saved.model.pixel_scaling, dtype=torch.float32)
    pixels = plain_inputs(AutoProcessor.from_pretrained(saved.folder))["pixel_values"][0]
    assert pixels.shape == (2 * 3 + 1, 3, 32, 32), (
        "2 x 3 tiles of the run's 96 px, not 3 x 4 of the base's 128"
    )
    torch.testing.assert_close(pixels, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("image_splitting", [True, False])
def test_the_runs_picture_settings_are_saved(
    saved: Saved, tmp_path: Path, image_splitting: bool
) -> None:
    save_processor(str(saved.base), tmp_path, media=media_settings(image_splitting=image_splitting))
    images = AutoProcessor.from_pretrained(tmp_path).image_processor
    assert images.do_image_splitting is image_splitting
    assert dict(images.size) == {"longest_edge": 64}
    assert dict(images.max_image_size) == {"longest_edge": 32}


def test_training_goes_on_from_it(saved: Saved) -> None:
    """Loaded by us again: same weights, same prompts; and saved once more, the same files."""
    again = load_checkpoint(str(saved.folder))
    own = saved.model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in again.model.state_dict().items())
    prompt = read_prompt_settings(again.processor)
    assert (prompt.tokens, prompt.media.pictures) == (
        saved.prompt.tokens,
        saved.prompt.media.pictures,
    )
    second = saved.folder.parent / "second"
    again.model.save_pretrained(second)
    save_processor(str(saved.folder), second, media=prompt.media)
    for path in saved.folder.iterdir():
        if path.name != "config.json":  # its `dtype` and the like are transformers' to arrange
            assert (second / path.name).read_bytes() == path.read_bytes(), path.name


def test_weights_trained_in_bfloat16_reload_in_it(saved: Saved, tmp_path: Path) -> None:
    half = copy.deepcopy(saved.model).to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert model.dtype is torch.bfloat16
    assert all(
        torch.equal(half.state_dict()[name], value) for name, value in model.state_dict().items()
    )
