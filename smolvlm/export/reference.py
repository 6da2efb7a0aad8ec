"""What the stock model answers to the prompts of a proof, in float32.

In: a folder that plain transformers loads. Out: a `Reference` a prompt. The prompt's ids and pixels
are those of training, which tests hold equal to the stock processor's; so pictures can also be cut
in a way that the stock processor has no setting for.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.export.proof import MAX_NEW_TOKENS, Reference
from smolvlm.export.proof_prompts import ProofPrompt
from smolvlm.media.images import open_rgb
from smolvlm.media.layout import layout_of
from smolvlm.media.tiles import make_tiles, pixel_values
from smolvlm.protocols import Processor
from smolvlm.records import ImageRef


def reference_answers(
    folder: Path, processor: Processor, prompt: PromptSettings, asked: Sequence[ProofPrompt]
) -> list[Reference]:
    """Answer greedily with the stock class.

    Args:
        folder: of a whole model.
        processor: of the checkpoint.
        prompt: how it is asked.
        asked: the questions.
    """
    model: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    ).eval()
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=prompt.tokens.end_of_turn,
        pad_token_id=prompt.tokens.pad,
        output_logits=True,
        return_dict_in_generate=True,
    )
    references: list[Reference] = []
    for each in asked:
        inputs = stock_tensors(processor, prompt, each)
        output = model.generate(**inputs, generation_config=settings)
        length = inputs["input_ids"].shape[1]
        ids = [int(token) for token in output.sequences[0, length:]]
        if prompt.tokens.end_of_turn in ids:
            ids = ids[: ids.index(prompt.tokens.end_of_turn)]
        logits = torch.cat([*output.logits])[: len(ids)]
        references.append(
            Reference(
                num_prompt_tokens=length,
                token_ids=tuple(ids),
                logprobs=logits.float().log_softmax(-1),
            )
        )
    return references


def stock_tensors(
    processor: Processor, prompt: PromptSettings, asked: ProofPrompt
) -> dict[str, Tensor]:
    """Return the stock model's inputs for one prompt: ids (1, seq), pixels (1, tile, 3, side,
    side)."""
    turn, media = asked.turn, prompt.media
    pictures = [block for block in turn.blocks if isinstance(block, ImageRef)]
    layouts = [layout_of(picture, media) for picture in pictures]
    encoded = prompt.encoder().encode_turns([turn], layouts=layouts, add_generation_prompt=True)
    images = processor.image_processor
    tiles = [
        pixel_values(
            make_tiles(open_rgb(picture), media.pictures),
            mean=images.image_mean,
            std=images.image_std,
            rescale_factor=images.rescale_factor,
        )
        for picture in pictures
    ]
    ids = torch.from_numpy(encoded.input_ids).long()[None]
    pixels = torch.cat([torch.from_numpy(each) for each in tiles])[None]
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
