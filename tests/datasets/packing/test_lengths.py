"""Sizes known from headers equal those of what is decoded; rows that cannot be trained are found
before training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing import lengths as lengths_module
from smolvlm.datasets.packing.lengths import (
    MODALITIES,
    Budget,
    HeaderReader,
    Meter,
    modality_of,
    over_budget,
    over_context,
)
from smolvlm.datasets.packing.measured import length_table
from smolvlm.media.images import open_rgb
from smolvlm.media.settings import MediaSettings
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Conversation, Grid, ImageRef, Layout, Media, Sample, Turn, VideoRef
from tests.memory_rows import measured_rows

ONE_TILE = Grid(rows=0, columns=0)


def asks(
    number: int, *blocks: str | ImageRef, answer: str = "yes", before: Sequence[Turn] = ()
) -> Conversation:
    turns = (*before, Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=(answer,)))
    return Conversation(turns=turns, where=f"rows.jsonl:{number}", source="rows")


def sizes_of(rows: Sequence[Conversation], prompt: PromptSettings) -> list[dict[str, Any]]:
    return Meter(prompt.encoder(), prompt.media).sizes(rows, range(len(rows))).to_pylist()


@pytest.fixture
def all_shapes(photos: dict[str, Path]) -> list[Conversation]:
    """A row of every shape, over every picture file."""
    by_path = {name: ImageRef(path=path) for name, path in photos.items()}
    coffee, rocket = by_path["coffee"], by_path["rocket"]
    in_the_row = ImageRef(data=photos["horse"].read_bytes())
    first_turns = (Turn(role="user", blocks=("Hi",)), Turn(role="assistant", blocks=("Ho",)))
    return [
        *(asks(number, image, "What?") for number, image in enumerate(by_path.values(), start=1)),
        asks(20, "Only text", answer="a longer answer,  2 lines\n"),
        asks(21, "What?", coffee),
        asks(22, coffee, "or", rocket, "?"),
        asks(23, coffee, coffee, "twice?"),
        asks(24, in_the_row, "What?"),
        asks(25, coffee, "later", before=first_turns),
        asks(26, rocket, before=[Turn(role="system", blocks=("Be brief.",))]),
        asks(
            27,
            coffee,
            before=[Turn(role="user", blocks=(rocket, "1")), Turn(role="assistant", blocks=("x",))],
        ),
    ]


def test_predicted_sizes_are_the_true_ones(
    prompt: PromptSettings, all_shapes: list[Conversation]
) -> None:
    found = measured_rows(all_shapes, prompt)
    table, headers = found.lengths, HeaderReader(prompt.media)
    assert len(table) == len(all_shapes)
    for number, row in enumerate(all_shapes):
        example = prompt.encoder().encode(
            Sample(conversations=(row,)), layouts=[headers.layouts(row.media)]
        )
        assert table.num_tokens[number] == len(example.input_ids)
        assert table.num_supervised_tokens[number] == len(example.target_ids)
        tiles = [len(make_tiles(open_rgb(image), prompt.media.pictures)) for image in row.media]
        assert table.num_tiles[number] == sum(tiles) == len(example.tiles)
        first_user = next(turn for turn in row.turns if turn.role == "user")
        num_prefix = sum(isinstance(block, ImageRef) for block in first_user.blocks)
        assert table.prefix_tiles[number] == sum(tiles[:num_prefix])
        places = np.flatnonzero(example.input_ids == prompt.tokens.image)
        in_prefix = places[: table.prefix_tiles[number] * prompt.tokens.tokens_per_tile]
        # The boundary behind the last image token closes the prefix.
        assert table.prefix_tokens[number] == (in_prefix[-1] + 2 if len(in_prefix) else 0)
        assert (table.prefix_group[number] == -1) == (num_prefix == 0)


def test_a_turned_picture_is_cut_as_it_stands_upright(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    (grid,) = HeaderReader(prompt.media).layouts([ImageRef(path=photos["on_its_side"])])
    assert grid == Grid(rows=4, columns=2)  # the file is 90 x 30 px


def test_a_header_is_read_once_however_many_rows_show_the_picture(
    prompt: PromptSettings, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    layout_of = lengths_module.layout_of

    def counting(medium: Media, settings: MediaSettings) -> Layout:
        read.append(medium.name)
        return layout_of(medium, settings)

    monkeypatch.setattr(lengths_module, "layout_of", counting)
    bytes_of_horse = photos["horse"].read_bytes()
    refs = [
        ImageRef(path=photos["coffee"]),
        ImageRef(path=photos["rocket"]),
        ImageRef(data=bytes_of_horse),
    ]
    sizes_of(
        [asks(number, refs[number % 3], refs[(number + 1) % 3], "?") for number in range(9)], prompt
    )
    assert sorted(read) == sorted(image.name for image in refs)


beginnings = st.tuples(
    st.sampled_from([(), (Turn(role="system", blocks=("Be brief.",)),)]),
    st.sampled_from([(), ("Look: ",)]),
    st.lists(st.sampled_from(("x", "ypz", "xpy", "z", "papb")), max_size=2),
    st.booleans(),
)


@settings(deadline=None, max_examples=100)
@given(first=beginnings, second=beginnings)
@example(first=((), (), ["x", "ypz"], False), second=((), (), ["xpy", "z"], False))
def test_prefix_keys_are_equal_for_equal_beginnings_and_pictures(
    prompt: PromptSettings, first: tuple, second: tuple
) -> None:
    def key(beginning: tuple, question: str) -> bytes:
        before, text, names, has_bytes = beginning
        images = [
            ImageRef(data=name.encode()) if has_bytes else ImageRef(path=Path(name))
            for name in names
        ]
        row = asks(1, *text, *images, question, before=before)
        return prompt.encoder().lengths(row, layouts=[ONE_TILE] * len(images)).prefix_key

    first_key, second_key = key(first, "a?"), key(second, "b?")
    assert (first_key == b"") == (not first[2])
    if first_key:
        assert (first_key == second_key) == (first == second)


def test_the_grid_is_part_of_the_beginning(prompt: PromptSettings) -> None:
    row = asks(1, ImageRef(path=Path("x")), "a?")
    one, two = (
        prompt.encoder().lengths(row, layouts=[grid]).prefix_key
        for grid in (ONE_TILE, Grid(rows=1, columns=2))
    )
    assert one != two


def test_equal_beginnings_become_equal_groups(
    prompt: PromptSettings, photos: dict[str, Path]
) -> None:
    coffee, rocket = (ImageRef(path=photos[name]) for name in ("coffee", "rocket"))
    rows = [
        asks(1, coffee, "a?"),
        asks(2, "Hi"),
        asks(3, rocket, "b?"),
        asks(4, coffee, "c?"),
        asks(5, "Ho"),
    ]
    groups = measured_rows(rows, prompt).lengths.prefix_group.tolist()
    assert groups[0] == groups[3] != groups[2]
    assert groups[1] == groups[4] == -1
    assert len(length_table([], [])) == 0


def test_three_pictures_are_several_and_no_clip() -> None:
    picture, clip = ImageRef(data=b"p"), VideoRef(data=b"c")
    named = [
        MODALITIES[modality_of(media)]
        for media in ([], [picture], [picture] * 2, [picture] * 3, [picture] * 9)
    ]
    assert named == ["text", "image", *["multiimage"] * 3]
    assert MODALITIES[modality_of([picture, clip])] == MODALITIES[modality_of([clip])] == "video"


def test_modality_is_what_a_row_holds(prompt: PromptSettings, photos: dict[str, Path]) -> None:
    coffee = ImageRef(path=photos["coffee"])
    rows = [asks(1, "Hi"), asks(2, coffee), asks(3, coffee, coffee)]
    assert [MODALITIES[row["modality"]] for row in sizes_of(rows, prompt)] == [
        "text",
        "image",
        "multiimage",
    ]


def test_a_row_above_a_budget(prompt: PromptSettings) -> None:
    what = "62 tokens, a pack holds data.max_tokens_per_pack=20"
    fix = "set data.max_tokens_per_pack to 62 or more, or shorten the row"
    sizes = {"num_tokens": 62, "num_tiles": 13}
    assert str(over_budget(sizes, Budget(max_tokens=20, max_tiles=13))) == f"{what}\n  fix: {fix}"
    what = "13 tiles, a pack holds data.max_tiles_per_pack=12"
    fix = "set data.max_tiles_per_pack to 13 or more, or data.image_splitting to false"
    assert str(over_budget(sizes, Budget(max_tokens=62, max_tiles=12))) == f"{what}\n  fix: {fix}"
    assert over_budget(sizes, Budget(max_tokens=62, max_tiles=13)) is None


def test_a_row_above_the_models_context() -> None:
    sizes = {"num_positions": 62, "modality": MODALITIES.index("image")}
    assert over_context(sizes, 62) is None
    assert over_context(sizes, None) is None
    what = "62 tokens in one conversation, the model's context is 61"
    fix = "shorten the row, or extend the context with model.rope_scaling"
    assert str(over_context(sizes, 61)) == f"{what}\n  fix: {fix}"
    clip = sizes | {"modality": MODALITIES.index("video")}
    fix = "set data.max_frames to fewer, or extend the context with model.rope_scaling"
    assert str(over_context(clip, 61)) == f"{what}\n  fix: {fix}"


def bad_rows(tmp_path: Path) -> list[Conversation]:
    (tmp_path / "empty.png").touch()
    (tmp_path / "foreign.png").write_text("not a picture")
    mute = Conversation(
        turns=(Turn(role="user", blocks=("Hi",)),), where="rows.jsonl:4", source="rows"
    )
    names = ("no.png", "empty.png", "foreign.png")
    return [
        *(
            asks(number, ImageRef(path=tmp_path / name))
            for number, name in enumerate(names, start=1)
        ),
        mute,
    ]


def test_rows_that_cannot_be_used_carry_their_error_and_keep_their_place(
    prompt: PromptSettings, tmp_path: Path
) -> None:
    found = sizes_of([asks(0, "first"), *bad_rows(tmp_path), asks(5, "last")], prompt)
    assert [row["row"] for row in found] == list(range(6))
    assert [row["where"] for row in found] == [None] * 6
    assert [row["num_tokens"] is None for row in found] == [False, True, True, True, True, False]
    parts = ("does not exist", "is empty", "is not a picture", "nothing in this row is learned")
    for row, part in zip(found[1:5], parts, strict=True):
        assert part in row["error"]
        assert row["fix"]
    assert [row["kind"] for row in found[1:5]] == [
        "missing_media",
        "empty_media",
        "corrupt_media",
        "empty_row",
    ]
