"""Preference rows as trees: everything before the answers once, and only the answers learned."""

import numpy as np
import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.records import Conversation, Frames, Grid, ImageRef, Layout, Sample, Turn, VideoRef

PICTURE, CLIP = ImageRef(data=b"picture"), VideoRef(data=b"clip")
LAYOUTS: dict[type, Layout] = {
    ImageRef: Grid(rows=1, columns=2),
    VideoRef: Frames(numbers=(0, 1), times_s=(0.0, 1.0), duration_s=2.0),
}


def said(*texts: str | tuple[str | ImageRef | VideoRef, ...]) -> tuple[Turn, ...]:
    blocks = [own if isinstance(own, tuple) else (own,) for own in texts]
    return tuple(
        Turn(role="assistant" if number % 2 else "user", blocks=own)
        for number, own in enumerate(blocks)
    )


PROMPTS = {
    "text": ("Why?",),
    "picture": ((PICTURE, "Why?"),),
    "clip and picture": ((CLIP, "or", PICTURE, "?"),),
    "several turns": ((PICTURE, "Why?"), "Because 2.", "And then?"),
}
ANSWERS = [
    ("A cat.", "A dog."),
    ("7", "seven"),
    ("The cat sat.", "The cat stood."),
    ("Yes.", "No, never."),
]


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize(("better", "worse"), ANSWERS)
def test_a_pair_is_a_tree_of_two_answers(
    prompt: PromptSettings, name: str, better: str, worse: str
) -> None:
    row = Conversation(
        turns=said(*PROMPTS[name], better),
        rejected=said(*PROMPTS[name], worse),
        where="rows.jsonl:1",
        source="rows",
    )
    layouts = [LAYOUTS[type(medium)] for medium in row.media]
    encoder = prompt.encoder()
    example = encoder.encode(Sample(conversations=(row,)), layouts=[layouts])
    sizes = encoder.lengths(row, layouts=layouts)
    assert (sizes.num_tokens, sizes.num_tiles) == (len(example.input_ids), len(example.tiles))
    assert sizes.num_positions == example.position_ids.max() + 1
    assert sizes.num_supervised_tokens == len(example.target_ids)
    assert len(example.tiles) == sum(layout.num_tiles for layout in layouts)
    alone = [encoder.encode_turns(turns, layouts=layouts) for turns in (row.turns, row.rejected)]
    trunk = example.conversation_starts[0]
    ends = [*example.conversation_starts[1:], len(example.input_ids)]
    for number, (start, end, own) in enumerate(
        zip(example.conversation_starts, ends, alone, strict=True)
    ):
        assert (
            np.concatenate([example.input_ids[:trunk], example.input_ids[start:end]]).tolist()
            == own.input_ids.tolist()
        )
        assert example.position_ids[start:end].tolist() == list(range(trunk, trunk + end - start))
        learned = example.target_ids[example.target_conversation == number]
        assert prompt.text.decode(learned.tolist()).strip() == (better, worse)[number]
        before = example.predict_from[example.target_conversation == number]
        assert before[0] == trunk - 1
        assert (before[1:] >= start).all()
    assert example.where == ("rows.jsonl:1", "rows.jsonl:1")


def test_pairs_about_one_picture_are_trees_of_their_own(prompt: PromptSettings) -> None:
    row = Conversation(
        turns=said((PICTURE, "q"), "x"), rejected=said((PICTURE, "q"), "y"), where="r:1", source="r"
    )
    assert prompt.encoder().lengths(row, layouts=[LAYOUTS[ImageRef]]).prefix_key == b""
    with pytest.raises(ValueError, match="a tree of its own"):
        prompt.encoder().encode(Sample(conversations=(row, row)), layouts=[[LAYOUTS[ImageRef]]] * 2)
