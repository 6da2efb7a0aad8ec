"""Conversations that share their pictures: each comes out of the tree as it goes in alone."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.encoded import LossWeighting, target_weight
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.encoding.tree import visible
from smolvlm.records import Conversation, Example, Grid, ImageRef, Sample, Turn

MakeTurns = Callable[..., st.SearchStrategy[tuple[Turn, ...]]]
ONE_TILE, SPLIT = Grid(rows=0, columns=0), Grid(rows=1, columns=2)


def picture(number: int) -> ImageRef:
    return ImageRef(data=number.to_bytes(4, "little"))


def conversation(
    number: int, shared: Sequence[Turn | str | ImageRef], rest: Sequence[Turn]
) -> Conversation:
    """A row that begins with the shared blocks, ahead of its own first user turn's."""
    before = [block for block in shared if isinstance(block, Turn)]
    blocks = tuple(block for block in shared if not isinstance(block, Turn))
    first = Turn(role="user", blocks=(*blocks, *rest[0].blocks))
    return Conversation(
        turns=(*before, first, *rest[1:]), where=f"rows:{number}", source=f"s{number % 2}"
    )


@st.composite
def trees(draw: st.DrawFn, random_turns: MakeTurns) -> tuple[list[Conversation], list[list[Grid]]]:
    """Two to four rows that begin with the same pictures and may show more of them in later
    turns."""
    openings = (
        Turn(role="system", blocks=("Be brief.",)),
        Turn(role="assistant", blocks=("Hello.",)),
    )
    shared: list[Turn | str | ImageRef] = [*draw(st.sampled_from([(), openings[:1], openings[1:]]))]
    shared += draw(st.sampled_from([[], ["Look: "]]))
    shared += [
        picture(number) for number in draw(st.lists(st.integers(0, 3), min_size=1, max_size=2))
    ]
    one_text = st.sampled_from(("What?", "  2", "\n", " of it"))
    rows = []
    for number in range(draw(st.integers(2, 4))):
        rest = draw(
            random_turns(make_image=lambda drawn: picture(drawn % 4), texts=one_text, max_images=1)
        )
        rest = [turn for turn in rest if turn.role != "system"]
        rest[0] = Turn(
            role="user", blocks=tuple(block for block in rest[0].blocks if isinstance(block, str))
        )
        rows.append(conversation(number, shared, rest))
    grid_of = {picture(number): SPLIT if number % 2 else ONE_TILE for number in range(4)}
    return rows, [[grid_of[image] for image in row.media] for row in rows]


def own_positions(example: Example, number: int, trunk: int) -> np.ndarray:
    """Where a conversation's tokens stand: those of the trunk, then those of its branch, as the
    scopes say."""
    start = example.conversation_starts[number]
    return np.concatenate([np.arange(trunk), np.arange(start, example.scope_end[start])])


@settings(deadline=None, max_examples=40)
@given(data=st.data(), weighting=st.sampled_from(("token", "sample", "sqrt")))
def test_each_conversation_stands_in_the_tree_as_it_does_alone(
    prompt: PromptSettings, random_turns: MakeTurns, data: st.DataObject, weighting: LossWeighting
) -> None:
    rows, grids = data.draw(trees(random_turns))
    encoder = prompt.encoder(loss_weighting=weighting)
    tree = encoder.encode(Sample(conversations=tuple(rows)), layouts=grids)
    seen = visible(tree.scope_end)
    trunk = encoder.lengths(rows[0], layouts=grids[0]).prefix_tokens
    for number, (row, own_grids) in enumerate(zip(rows, grids, strict=True)):
        alone = encoder.encode(Sample(conversations=(row,)), layouts=[own_grids])
        own = own_positions(tree, number, trunk)
        assert np.array_equal(tree.input_ids[own], alone.input_ids)
        assert np.array_equal(tree.position_ids[own], alone.position_ids)
        assert np.array_equal(tree.learned[own], alone.learned)
        assert np.array_equal(tree.roles[own], alone.roles)
        assert np.array_equal(seen[np.ix_(own, own)], np.tri(len(own), dtype=bool))
        others = np.setdiff1d(np.arange(len(tree.input_ids)), own)
        assert not seen[np.ix_(own[trunk:], others)].any()
        assert targets_of(tree, number, own) == targets_of(
            alone, 0, np.arange(len(alone.input_ids))
        )
        assert [tile_of(tree, slot) for slot in slots_in(tree, own, prompt)] == [
            tile_of(alone, slot) for slot in range(len(alone.tiles))
        ]
    assert len(tree.input_ids) == trunk + sum(
        len(own_positions(tree, i, trunk)) - trunk for i in range(len(rows))
    )
    assert tree.where == tuple(row.where for row in rows)
    assert tree.sources == tuple(row.source for row in rows)
    assert len(set(tree.media)) == len(tree.media)


def targets_of(example: Example, number: int, own: np.ndarray) -> list[tuple[int, int, float]]:
    """(place of the predicting token within the conversation, target, weight) of one conversation's
    targets."""
    mine = example.target_conversation == number
    places = np.searchsorted(own, example.predict_from[mine])
    assert np.array_equal(own[places], example.predict_from[mine])
    targets = zip(places, example.target_ids[mine], example.target_weights[mine], strict=True)
    return [(int(place), int(target), float(weight)) for place, target, weight in targets]


def slots_in(example: Example, own: np.ndarray, prompt: PromptSettings) -> list[int]:
    """Numbers of the image slots whose tokens are among a conversation's."""
    places = np.flatnonzero(example.input_ids == prompt.tokens.image)[
        :: prompt.tokens.tokens_per_tile
    ]
    assert len(places) == len(example.tiles)
    return np.flatnonzero(np.isin(places, own)).tolist()


def tile_of(example: Example, slot: int) -> tuple[ImageRef, int]:
    return example.media[example.tiles[slot].medium], example.tiles[slot].tile


def asks(where: int, *blocks: str | ImageRef, answer: str = "yes") -> Conversation:
    turns = (Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=(answer,)))
    return Conversation(turns=turns, where=f"rows:{where}", source="s")


def test_what_the_trunk_teaches_is_taught_by_every_branch(prompt: PromptSettings) -> None:
    greeting = Turn(role="assistant", blocks=("Hello.",))
    rows = [asks(number, picture(0), text) for number, text in ((1, "a?"), (2, "b?"))]
    rows = [Conversation(turns=(greeting, *row.turns), where=row.where, source="s") for row in rows]
    tree = prompt.encoder().encode(Sample(conversations=tuple(rows)), layouts=[[ONE_TILE]] * 2)
    in_trunk = tree.predict_from < tree.conversation_starts[0]
    first, second = (
        tree.predict_from[in_trunk & (tree.target_conversation == number)] for number in range(2)
    )
    assert len(first) == 3  # " Hello", "." and the end
    assert np.array_equal(first, second)


@pytest.mark.parametrize("weighting", ["token", "sample", "sqrt"])
def test_weights_go_by_each_conversations_own_tokens(
    prompt: PromptSettings, weighting: LossWeighting
) -> None:
    rows = [
        asks(1, picture(0), "a?", answer="yes"),
        asks(2, picture(0), "b?", answer="a much longer answer"),
    ]
    tree = prompt.encoder(loss_weighting=weighting).encode(
        Sample(conversations=tuple(rows)), layouts=[[ONE_TILE]] * 2
    )
    for number in range(2):
        own = tree.target_weights[tree.target_conversation == number]
        assert own.dtype == np.float32
        assert own == pytest.approx(np.full(len(own), target_weight(len(own), weighting)))


def test_rows_that_begin_otherwise_are_no_tree(prompt: PromptSettings) -> None:
    rows = (asks(1, picture(0), "a?"), asks(2, "Look: ", picture(0), "b?"))
    with pytest.raises(ValueError, match="must begin with the same tokens"):
        prompt.encoder().encode(Sample(conversations=rows), layouts=[[ONE_TILE]] * 2)


def test_text_alone_shares_nothing(prompt: PromptSettings) -> None:
    rows = (asks(1, "same?"), asks(2, "same?"))
    example = prompt.encoder().encode(Sample(conversations=rows), layouts=[[], []])
    half = len(example.input_ids) // 2
    assert example.conversation_starts == (0, half)
    assert example.scope_end.tolist() == [half] * half + [2 * half] * half
