"""Sizes known from headers equal those of what is decoded; rows that cannot be trained are found before training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smolvlm.datasets import lengths as lengths_module
from smolvlm.datasets.bad_samples import BadSamples
from smolvlm.datasets.lengths import Budget, HeaderReader, MeasuredSet, length_table, measure
from smolvlm.encoding.prompts import PromptSettings
from smolvlm.errors import SampleError
from smolvlm.media.images import open_rgb
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Conversation, Grid, ImageRef, Lengths, Sample, Turn

AMPLE = Budget(max_tokens=4096, max_tiles=256)
ONE_TILE = Grid(rows=0, columns=0)


def asks(number: int, *blocks: str | ImageRef, answer: str = "yes", before: Sequence[Turn] = ()) -> Conversation:
    turns = (*before, Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=(answer,)))
    return Conversation(turns=turns, where=f"rows.jsonl:{number}", source="rows")


def measured(
    rows: Sequence[Conversation], prompt: PromptSettings, *, budget: Budget = AMPLE, bad: BadSamples | None = None
) -> MeasuredSet:
    return measure(
        rows, encoder=prompt.encoder(), settings=prompt.tiles, budget=budget, bad_samples=bad or BadSamples()
    )


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
        asks(27, coffee, before=[Turn(role="user", blocks=(rocket, "1")), Turn(role="assistant", blocks=("x",))]),
    ]


def test_predicted_sizes_are_the_true_ones(prompt: PromptSettings, all_shapes: list[Conversation]) -> None:
    found = measured(all_shapes, prompt)
    assert found.conversations == tuple(all_shapes)
    table = found.lengths
    assert len(table) == len(all_shapes)
    for number, row in enumerate(all_shapes):
        example = prompt.encoder().encode(Sample(conversations=(row,)), grids=[found.grids[number]])
        assert table.num_tokens[number] == len(example.input_ids)
        assert table.num_supervised_tokens[number] == len(example.target_ids)
        tiles = [len(make_tiles(open_rgb(image, where=row.where), prompt.tiles)) for image in row.images]
        assert table.num_tiles[number] == sum(tiles) == len(example.tiles)
        first_user = next(turn for turn in row.turns if turn.role == "user")
        num_prefix = sum(isinstance(block, ImageRef) for block in first_user.blocks)
        assert table.prefix_tiles[number] == sum(tiles[:num_prefix])
        places = np.flatnonzero(example.input_ids == prompt.tokens.image)
        in_prefix = places[: table.prefix_tiles[number] * prompt.tokens.tokens_per_tile]
        # The boundary behind the last image token closes the prefix.
        assert table.prefix_tokens[number] == (in_prefix[-1] + 2 if len(in_prefix) else 0)
        assert (table.prefix_group[number] == -1) == (num_prefix == 0)


def test_a_turned_picture_is_cut_as_it_stands_upright(prompt: PromptSettings, photos: dict[str, Path]) -> None:
    (grid,) = HeaderReader(prompt.tiles).grids([ImageRef(path=photos["on_its_side"])], where="row")
    assert grid == Grid(rows=4, columns=2)  # the file is 90 x 30 px


def test_a_header_is_read_once_however_many_rows_show_the_picture(
    prompt: PromptSettings, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    header_size = lengths_module.header_size

    def counting(image: ImageRef, *, where: str) -> tuple[int, int]:
        read.append(image.name)
        return header_size(image, where=where)

    monkeypatch.setattr(lengths_module, "header_size", counting)
    bytes_of_horse = photos["horse"].read_bytes()
    refs = [ImageRef(path=photos["coffee"]), ImageRef(path=photos["rocket"]), ImageRef(data=bytes_of_horse)]
    measured([asks(number, refs[number % 3], refs[(number + 1) % 3], "?") for number in range(9)], prompt)
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
        images = [ImageRef(data=name.encode()) if has_bytes else ImageRef(path=Path(name)) for name in names]
        row = asks(1, *text, *images, question, before=before)
        return prompt.encoder().lengths(row, grids=[ONE_TILE] * len(images)).prefix_key

    first_key, second_key = key(first, "a?"), key(second, "b?")
    assert (first_key == b"") == (not first[2])
    if first_key:
        assert (first_key == second_key) == (first == second)


def test_the_grid_is_part_of_the_beginning(prompt: PromptSettings) -> None:
    row = asks(1, ImageRef(path=Path("x")), "a?")
    one, two = (prompt.encoder().lengths(row, grids=[grid]).prefix_key for grid in (ONE_TILE, Grid(rows=1, columns=2)))
    assert one != two


def test_equal_keys_become_equal_groups() -> None:
    sizes = [
        Lengths(num_tokens=5, num_tiles=1, num_supervised_tokens=2, prefix_tokens=3, prefix_tiles=1, prefix_key=key)
        for key in (b"a", b"", b"b", b"a", b"")
    ]
    table = length_table(sizes)
    assert table.prefix_group.tolist() == [0, -1, 1, 0, -1]
    assert table.num_tokens.tolist() == [5] * 5
    assert len(length_table([])) == 0


def test_a_row_above_the_token_budget(prompt: PromptSettings) -> None:
    with pytest.raises(SampleError) as raised:
        measured([asks(3, "word " * 50)], prompt, budget=Budget(max_tokens=20, max_tiles=1))
    what = "rows.jsonl:3: 62 tokens, a pack holds data.max_tokens_per_pack=20"
    assert str(raised.value) == f"{what}\n  fix: set data.max_tokens_per_pack to 62 or more, or shorten the row"


def test_a_row_above_the_tile_budget(prompt: PromptSettings, photos: dict[str, Path]) -> None:
    with pytest.raises(SampleError) as raised:
        measured([asks(3, ImageRef(path=photos["coffee"]))], prompt, budget=Budget(max_tokens=4096, max_tiles=12))
    what = "rows.jsonl:3: 13 tiles, a pack holds data.max_tiles_per_pack=12"
    fix = "set data.max_tiles_per_pack to 13 or more, or data.image_splitting to false"
    assert str(raised.value) == f"{what}\n  fix: {fix}"


def test_a_row_that_fits_its_budget_exactly(prompt: PromptSettings, photos: dict[str, Path]) -> None:
    row = asks(3, ImageRef(path=photos["coffee"]))
    num_tokens = int(measured([row], prompt).lengths.num_tokens[0])
    exact = Budget(max_tokens=num_tokens, max_tiles=13)
    assert len(measured([row], prompt, budget=exact).lengths) == 1
    with pytest.raises(SampleError, match=f"{num_tokens} tokens"):
        measured([row], prompt, budget=Budget(max_tokens=num_tokens - 1, max_tiles=13))


def test_a_missing_picture(prompt: PromptSettings, tmp_path: Path) -> None:
    missing = tmp_path / "no.png"
    with pytest.raises(SampleError) as raised:
        measured([asks(9, ImageRef(path=missing), "What?")], prompt)
    assert str(raised.value).startswith(f"rows.jsonl:9: picture {missing} does not exist\n  fix: correct the path")


def bad_rows(tmp_path: Path) -> list[Conversation]:
    (tmp_path / "empty.png").touch()
    (tmp_path / "foreign.png").write_text("not a picture")
    mute = Conversation(turns=(Turn(role="user", blocks=("Hi",)),), where="rows.jsonl:4", source="rows")
    names = ("no.png", "empty.png", "foreign.png")
    return [*(asks(number, ImageRef(path=tmp_path / name)) for number, name in enumerate(names, start=1)), mute]


def test_all_findings_are_raised_together(prompt: PromptSettings, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as raised:
        measured([*bad_rows(tmp_path), asks(5, "Hi")], prompt)
    text = str(raised.value)
    assert text.startswith("4 of 5 rows cannot be used; the first:\n- rows.jsonl:1: picture ")
    for part in (":2: picture", "is empty", ":3: ", "is not a picture", ":4: nothing in this row is learned"):
        assert part in text


def test_skipped_rows_are_counted_and_the_rest_keeps_its_order(prompt: PromptSettings, tmp_path: Path) -> None:
    bad = BadSamples(policy="skip", max_fraction=0.8)
    rows = [asks(0, "first"), *bad_rows(tmp_path), asks(5, "last")]
    found = measured(rows, prompt, bad=bad)
    assert found.conversations == (rows[0], rows[-1])
    assert len(found.grids) == len(found.lengths) == 2
    assert [row.where for row in bad.skipped] == [f"rows.jsonl:{number}" for number in (1, 2, 3, 4)]
    assert bad.num_rows == 6
    assert len(bad.reasons()) == 4


def test_too_many_skipped_rows_are_an_error(prompt: PromptSettings, tmp_path: Path) -> None:
    bad = BadSamples(policy="skip", max_fraction=0.5)
    with pytest.raises(SampleError, match=r"4 of 5 rows cannot be used, more than max_bad_fraction=0\.5"):
        measured([*bad_rows(tmp_path), asks(5, "Hi")], prompt, bad=bad)
