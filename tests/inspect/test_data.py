"""Samples laid out for display say exactly what their arrays say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import SampleError
from smolvlm.inspect.data import Decode, as_json_object, check_learned, inspect_example, token_texts
from smolvlm.inspect.records import InspectedClip, InspectedSample, PackFill, PackSummary, run_label
from smolvlm.records import Conversation, Example, Frames, Grid, ImageRef, Sample, Turn, VideoRef

Inspect = Callable[[Example], InspectedSample]


def test_a_tree_is_a_trunk_and_its_branches(tree: Example, inspect: Inspect) -> None:
    sample = inspect(tree)
    assert sample.trunk is not None
    assert (sample.trunk.start, sample.trunk.end) == (0, tree.conversation_starts[0])
    assert [branch.where for branch in sample.branches] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert sample.branches[0].end == sample.branches[1].start
    assert sample.branches[-1].end == sample.num_tokens == len(tree.input_ids)


def test_a_plain_conversation_has_no_trunk(
    make_example: Any, row_type: Any, inspect: Inspect
) -> None:
    sample = inspect(make_example(row_type(question="Two and two?", answer="Four.")))
    assert sample.trunk is None
    assert len(sample.branches) == 1
    assert sample.media == ()


def test_the_runs_cover_the_sample_once(tree: Example, inspect: Inspect) -> None:
    sample = inspect(tree)
    assert sample.trunk is not None
    runs = [run for part in (sample.trunk, *sample.branches) for run in part.runs]
    covered = [place for run in runs for place in range(run.start, run.start + run.count)]
    assert covered == list(range(len(tree.input_ids)))
    assert [run.token_id for run in runs for _ in range(run.count)] == tree.input_ids.tolist()
    learned = [run.start for run in runs if run.is_learned]
    assert learned == np.flatnonzero(tree.learned).tolist()


def test_image_tokens_of_a_tile_are_one_run_that_names_its_tile(
    tree: Example, inspect: Inspect
) -> None:
    sample = inspect(tree)
    assert sample.trunk is not None
    runs = [run for run in sample.trunk.runs if run.tile is not None]
    assert tuple(run.tile for run in runs) == tree.tiles
    assert {(run.count, run.text, run.role) for run in runs} == {(4, "<image>", TokenRole.IMAGE)}


@pytest.mark.parametrize(
    ("photo", "rows", "columns"), [("coffee", 3, 4), ("rocket", 1, 4), ("camera", 4, 4)]
)
def test_grids_are_read_off_the_newlines(
    make_example: Any,
    row_type: Any,
    inspect: Inspect,
    photos: Any,
    photo: str,
    rows: int,
    columns: int,
) -> None:
    image = ImageRef(path=photos[photo])
    example = make_example(row_type(question="And\nthis?", answer="Well.", images=(image, image)))
    (picture,) = inspect(example).media
    assert picture.grid == Grid(rows=rows, columns=columns)
    assert len(example.tiles) == 2 * picture.grid.num_tiles


@pytest.fixture(scope="module")
def averaged(prompt: PromptSettings) -> Example:
    """A row about one clip of five frames, two to a place."""
    clip = Frames(
        numbers=(0, 3, 6, 9, 12),
        times_s=(0.0, 0.5, 1.0, 1.5, 2.0),
        duration_s=2.25,
        frames_per_slot=2,
    )
    turns = (
        Turn(role="user", blocks=(VideoRef(data=b"clip"), "What?")),
        Turn(role="assistant", blocks=("A cup.",)),
    )
    conversation = Conversation(turns=turns, where="rows.jsonl:1", source="rows")
    return prompt.encoder().encode(Sample(conversations=(conversation,)), layouts=[[clip]])


def test_averaged_frames_are_shown_by_their_places(
    averaged: Example, decode: Decode, prompt: PromptSettings
) -> None:
    tiles = np.zeros((5, 3, 32, 32), np.uint8)
    sample = inspect_example(
        averaged, decode=decode, image_token_id=prompt.tokens.image, tiles=[tiles]
    )
    (clip,) = sample.media
    assert isinstance(clip, InspectedClip)
    assert clip.slot_sizes == (2, 2, 1)
    assert clip.times_s == (0.0, 0.5, 1.0, 1.5, 2.0)
    runs = [run for run in sample.branches[0].runs if run.tile is not None]
    assert [(run.tile.tile, run.num_tiles, run.times_s) for run in runs if run.tile] == [
        (0, 2, (0.0, 0.5)),
        (2, 2, (1.0, 1.5)),
        (4, 1, (2.0,)),
    ]
    assert [run_label(run) for run in runs] == [
        "4 x <image> (mean of 2 frames, 0.00 to 0.50 s)",
        "4 x <image> (mean of 2 frames, 1.00 to 1.50 s)",
        "4 x <image>",
    ]
    found = as_json_object(averaged, decode)
    assert (found["num_tiles"], found["frame_times_s"]) == (5, [0.0, 0.5, 1.0, 1.5, 2.0])


def test_frames_and_places_that_do_not_fit_are_a_broken_contract(
    averaged: Example, decode: Decode, prompt: PromptSettings
) -> None:
    wrong = replace(averaged, tiles=averaged.tiles[:4], slot_sizes=(2, 1, 1))
    with pytest.raises(ValueError, match="5 frames, its text has 4"):
        inspect_example(wrong, decode=decode, image_token_id=prompt.tokens.image)
    pixels = [np.zeros((4, 3, 32, 32), np.uint8)]
    with pytest.raises(ValueError, match="4 tiles, its text has 5"):
        inspect_example(averaged, decode=decode, image_token_id=prompt.tokens.image, tiles=pixels)


def test_an_uncut_picture_is_the_whole_view_alone(processors: Any, photos: Any) -> None:
    from smolvlm.datasets.encoding.prompts import read_prompt_settings

    prompt = read_prompt_settings(processors["smolvlm"], image_splitting=False)
    turns = (
        Turn(role="user", blocks=(ImageRef(path=photos["coffee"]),)),
        Turn(role="assistant", blocks=("A cup.",)),
    )
    conversation = Conversation(turns=turns, where="rows.jsonl:1", source="rows")
    example = prompt.encoder().encode(
        Sample(conversations=(conversation,)), layouts=[[Grid(rows=0, columns=0)]]
    )
    decode = token_texts(processors["smolvlm"].tokenizer.backend_tokenizer)
    (picture,) = inspect_example(example, decode=decode, image_token_id=prompt.tokens.image).media
    assert picture.grid == Grid(rows=0, columns=0)
    assert picture.tiles is None


def test_a_tile_too_few_is_a_broken_contract(
    tree: Example, decode: Decode, prompt: PromptSettings
) -> None:
    with pytest.raises(ValueError, match="only 12 tiles"):
        inspect_example(
            replace(tree, tiles=tree.tiles[:-1]), decode=decode, image_token_id=prompt.tokens.image
        )
    doubled = replace(tree, tiles=(*tree.tiles, tree.tiles[0]))
    with pytest.raises(ValueError, match="1 tiles have no image tokens"):
        inspect_example(doubled, decode=decode, image_token_id=prompt.tokens.image)


def test_scopes_that_are_no_tree_are_a_broken_contract(
    tree: Example, decode: Decode, prompt: PromptSettings
) -> None:
    wrong = tree.scope_end.copy()
    wrong[tree.conversation_starts[0]] += 1
    with pytest.raises(ValueError, match="conversations start at"):
        inspect_example(
            replace(tree, scope_end=wrong), decode=decode, image_token_id=prompt.tokens.image
        )


def test_targets_name_what_is_predicted_from_where(tree: Example, inspect: Inspect) -> None:
    targets = inspect(tree).targets
    assert [target.predict_from for target in targets] == tree.predict_from.tolist()
    assert (
        "".join(target.text for target in targets if target.conversation == 1)
        == " Yes.<end_of_utterance>"
    )


def test_the_json_object_has_the_published_keys(tree: Example, decode: Decode) -> None:
    found = as_json_object(tree, decode)
    keys = [
        "where",
        "input_ids",
        "position_ids",
        "scope_end",
        "targets",
        "num_tiles",
        "frame_times_s",
        "text",
    ]
    assert list(found) == keys
    assert found["where"] == ["rows.jsonl:1", "rows.jsonl:2"]
    assert found["num_tiles"] == 13
    assert found["frame_times_s"] == []
    rows = found["targets"]
    assert isinstance(rows, list)
    assert rows[0] == [int(tree.predict_from[0]), int(tree.target_ids[0]), 1.0]
    assert [type(value) for value in rows[0]] == [int, int, float]


def test_the_text_is_the_whole_decoded(tree: Example, decode: Decode, processors: Any) -> None:
    tokenizer = processors["smolvlm"].tokenizer.backend_tokenizer
    whole = tokenizer.decode(tree.input_ids.tolist(), skip_special_tokens=False)
    assert as_json_object(tree, decode)["text"] == whole


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@settings(deadline=None, max_examples=60)
def test_token_texts_joined_are_the_text(processors: Any, text: str) -> None:
    tokenizer = processors["smolvlm"].tokenizer.backend_tokenizer
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    texts = token_texts(tokenizer)(ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids, skip_special_tokens=False)


def test_a_good_sample_passes(tree: Example, prompt: PromptSettings) -> None:
    check_learned(tree, image_token_id=prompt.tokens.image)


def test_a_conversation_that_supervises_nothing_is_refused(
    tree: Example, prompt: PromptSettings
) -> None:
    keep = tree.target_conversation == 0
    silent = replace(
        tree,
        predict_from=tree.predict_from[keep],
        target_ids=tree.target_ids[keep],
        target_weights=tree.target_weights[keep],
        target_conversation=tree.target_conversation[keep],
    )
    with pytest.raises(SampleError, match=r"rows\.jsonl:2: nothing in this row is learned"):
        check_learned(silent, image_token_id=prompt.tokens.image)


def test_an_image_token_as_target_is_refused(tree: Example, prompt: PromptSettings) -> None:
    targets = tree.target_ids.copy()
    targets[0] = prompt.tokens.image
    with pytest.raises(SampleError, match=r"rows\.jsonl:1: an image token would be learned"):
        check_learned(replace(tree, target_ids=targets), image_token_id=prompt.tokens.image)


def test_fill_is_the_share_of_all_budgets() -> None:
    packs = tuple(
        PackFill(num_tokens=tokens, budget_tokens=100, num_tiles=tiles, budget_tiles=8)
        for tokens, tiles in ((100, 8), (50, 0))
    )
    assert PackSummary(packs=packs).token_fill == 0.75
    assert PackSummary(packs=packs).tile_fill == 0.5
    assert PackSummary(packs=()).token_fill == 0
