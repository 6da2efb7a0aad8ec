"""Released checkpoints' own files, where a folder of them is at hand: `SMOLVLM_REFERENCE` names it.

Each folder in it holds a checkpoint's configuration, tokenizer, chat template and processor
settings; weights are not needed.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoProcessor

from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.media.tile_grid import grid_for
from smolvlm.records import ImageRef, Turn

REFERENCE = os.environ.get("SMOLVLM_REFERENCE")
FOLDERS = (
    sorted(path.parent for path in Path(REFERENCE).glob("*/processor_config.json"))
    if REFERENCE
    else []
)

pytestmark = pytest.mark.skipif(
    not FOLDERS, reason="SMOLVLM_REFERENCE names no folder with checkpoints' files"
)
SIZE = (97, 128)
ANSWERS = ("12 cats.", "<doctag><text>12 cats</text></doctag>")


@pytest.mark.parametrize("folder", FOLDERS or [Path("none")], ids=lambda path: path.name)
@pytest.mark.parametrize("answer", ANSWERS)
def test_ids_are_those_of_the_released_files(folder: Path, answer: str) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    prompt = read_prompt_settings(processor)
    image = ImageRef(path=Path("x"))
    turns = [
        Turn(role="system", blocks=("Be brief.",)),
        Turn(role="user", blocks=(image, "Convert this page.")),
        Turn(role="assistant", blocks=(answer,)),
        Turn(role="user", blocks=("Compare ", image, " and 3 + 4?")),
    ]
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": block} if isinstance(block, str) else {"type": "image"}
                for block in turn.blocks
            ],
        }
        for turn in turns
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [Image.new("RGB", SIZE)] * 2
    theirs = processor(text=text, images=[pictures], add_special_tokens=False)["input_ids"][0]
    grids = [grid_for(*SIZE, prompt.media.pictures)] * 2
    ours = prompt.encoder().encode_turns(turns, layouts=grids, add_generation_prompt=True)
    assert ours.input_ids.tolist() == list(theirs)
    learned = ours.input_ids[ours.learned].tolist()
    assert learned[-1] == prompt.tokens.end_of_turn
    assert prompt.text.decode(learned).strip() == answer


@pytest.mark.parametrize("folder", FOLDERS or [Path("none")], ids=lambda path: path.name)
def test_what_prompts_are_built_of_stays_text_in_a_row(folder: Path) -> None:
    prompt = read_prompt_settings(AutoProcessor.from_pretrained(folder))
    for token in sorted(prompt.text.prompt_tokens):
        ids, _ = prompt.text(f"a{token}b")
        assert prompt.tokens.image not in ids
        assert prompt.tokens.end_of_turn not in ids
        assert prompt.text.decode(ids) == f"a{token}b"
