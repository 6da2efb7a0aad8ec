"""A written processor folder: what stock AutoProcessor makes of it."""

from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor

from smolvlm.build.processor import ModelType, PictureSettings, write_processor

ONE_TURN = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}
]


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm"])
def test_the_stock_processor_renders_a_split_picture(tmp_path: Path, model_type: ModelType) -> None:
    write_processor(
        tmp_path,
        model_type=model_type,
        tile_side_px=32,
        tokens_per_tile=2,
        pictures=PictureSettings(longest_edge_px=64),
    )
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert (
        type(processor).__name__
        == {"idefics3": "Idefics3Processor", "smolvlm": "SmolVLMProcessor"}[model_type]
    )
    prompt = processor.apply_chat_template(ONE_TURN, add_generation_prompt=True)
    batch = processor(
        text=prompt, images=[[Image.new("RGB", (50, 20), "red")]], return_tensors="pt"
    )
    assert processor.decode(batch["input_ids"][0]) == (
        "<|im_start|>User:"
        "<fake_token_around_image><row_1_col_1><image><image><fake_token_around_image><row_1_col_2><image><image>\n"
        "\n<fake_token_around_image><global-img><image><image><fake_token_around_image>"
        "What is it?<end_of_utterance>\nAssistant:"
    )
    assert batch["pixel_values"].shape == (1, 3, 3, 32, 32)
    assert batch["pixel_values"][0, 0, :, 0, 0].tolist() == [1.0, -1.0, -1.0]
    tokenizer = processor.tokenizer
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == (
        "<end_of_utterance>",
        "<|im_end|>",
        49_280,
    )


@pytest.mark.parametrize("longest_edge_px", [48, 0, 7 * 32])
def test_a_longest_edge_that_is_not_one_to_six_tiles_is_refused(
    tmp_path: Path, longest_edge_px: int
) -> None:
    with pytest.raises(ValueError, match="is not 1 to 6 times tile_side_px=32"):
        write_processor(
            tmp_path,
            model_type="smolvlm",
            tile_side_px=32,
            tokens_per_tile=2,
            pictures=PictureSettings(longest_edge_px=longest_edge_px),
        )
