"""What holds of every checkpoint: ids are the stock processor's; and a run of one step."""

from pathlib import Path
from typing import Any

from PIL import Image

from smolvlm import api
from smolvlm.checkpoints.load import load_processor
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.media.tile_grid import grid_for
from smolvlm.records import ImageRef, Turn


def conversation(answer: str) -> list[Turn]:
    image = ImageRef(path=Path("97x128"))
    return [
        Turn(role="system", blocks=("Be brief.",)),
        Turn(role="user", blocks=("  Compare ", image, " and", image, "?\n")),
        Turn(role="assistant", blocks=(answer,)),
        Turn(role="user", blocks=(image, "And 3 + 4?")),
        Turn(role="assistant", blocks=(" 7",)),
    ]


def stock_ids(processor: Any, prompt: PromptSettings, turns: list[Turn], asks: bool) -> list[int]:
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
    text = processor.apply_chat_template(
        messages, chat_template=prompt.template.source, add_generation_prompt=asks
    )
    pictures = [Image.new("RGB", (97, 128)) for turn in turns for b in turn.blocks if b != str(b)]
    return processor(text=text, images=[pictures], add_special_tokens=False)["input_ids"][0]


def assert_ids_are_the_stock_processors(folder: Path, answer: str) -> None:
    """Hold prompts with and without their last answer to those of the checkpoint's own processor
    and template."""
    processor = load_processor(str(folder))
    prompt = read_prompt_settings(processor)
    turns = conversation(answer)
    for shown, asks in ((turns, False), (turns[:-1], True)):
        grids = [
            grid_for(97, 128, prompt.media.pictures)
            for turn in shown
            for block in turn.blocks
            if isinstance(block, ImageRef)
        ]
        ours = prompt.encoder().encode_turns(shown, layouts=grids, add_generation_prompt=asks)
        assert ours.input_ids.tolist() == list(stock_ids(processor, prompt, shown, asks))


def one_step_config(model: Path, out: Path, rows: list[dict[str, Any]], **data: Any) -> RunConfig:
    """Return settings of a run of one step over rows of the program's."""
    settings = {
        "model": {"path": str(model)},
        "data": {"allow_outside_root": True, **data},
        "train": {"output_dir": str(out), "max_steps": 1, "packs_per_step": 1, "use_cpu": True},
    }
    return api.load_config(settings, rows=rows)
