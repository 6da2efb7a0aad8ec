"""What the model sees and learns of one sample, as plain values that a terminal or a page can draw.

In: an `Example`, a way from ids to text, and where wanted the pixels. Out: an `InspectedSample`,
whose parts are a trunk and its branches, or one conversation. Everything is read off the arrays
that training consumes, the tree from `scope_end` and each picture's grid from the newlines between
its tiles, so that a mistake made while encoding shows instead of being drawn as it was meant.
"""

from collections.abc import Callable, Sequence
from itertools import groupby, islice, pairwise

from tokenizers import Tokenizer

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.errors import SampleError
from smolvlm.inspect.records import (
    InspectedClip,
    InspectedPicture,
    InspectedSample,
    InspectedTarget,
    SamplePart,
    TilePixels,
    TokenRun,
)
from smolvlm.records import Example, Frames, Grid, TileRef

Decode = Callable[[Sequence[int]], Sequence[str]]
"""Token ids to the text of each, special tokens written out."""


def token_texts(tokenizer: Tokenizer) -> Decode:
    """Return a decoder that gives each token's own text.

    A character whose bytes are spread over several tokens is given to the last of them, the others
    are empty; so the texts joined are the text of the whole.
    """

    def decode(ids: Sequence[int]) -> list[str]:
        texts: list[str] = []
        waiting: list[int] = []
        for token in ids:
            waiting.append(int(token))
            text = tokenizer.decode(waiting, skip_special_tokens=False)
            is_whole = not text.endswith("\N{REPLACEMENT CHARACTER}")
            texts.append(text if is_whole else "")
            if is_whole:
                waiting.clear()
        if waiting:
            texts[-1] = tokenizer.decode(waiting, skip_special_tokens=False)
        return texts

    return decode


def inspect_example(
    example: Example,
    *,
    decode: Decode,
    image_token_id: int,
    tiles: Sequence[TilePixels] | None = None,
) -> InspectedSample:
    """Lay a sample out for display.

    Args:
        example: as encoded.
        decode: ids to texts, as `token_texts` makes it.
        image_token_id: id of `<image>`.
        tiles: the tiles of each of `example.media`; None draws no pictures.

    Raises:
        ValueError: the image tokens, the tiles or the scopes of the example do not fit each other.
    """
    runs = _token_runs(example, decode, image_token_id)
    if tiles is not None and len(tiles) != len(example.media):
        raise ValueError(f"tiles of {len(tiles)} media for a sample of {len(example.media)}")
    media = [
        _medium(example, runs, number, tiles[number] if tiles else None)
        for number in range(len(example.media))
    ]
    trunk, branches = _parts(example, runs)
    return InspectedSample(
        where=example.where,
        sources=example.sources,
        trunk=trunk,
        branches=branches,
        targets=_targets(example, decode),
        media=tuple(media),
        scope_end=example.scope_end,
        num_tiles=len(example.tiles),
        num_learned=int(example.learned.sum()),
    )


def as_json_object(example: Example, decode: Decode) -> dict[str, object]:
    """Return the sample as `smolvlm inspect --json` prints it; the keys are a published format."""
    targets = zip(
        example.predict_from.tolist(),
        example.target_ids.tolist(),
        example.target_weights.tolist(),
        strict=True,
    )
    return {
        "where": list(example.where),
        "input_ids": example.input_ids.tolist(),
        "position_ids": example.position_ids.tolist(),
        "scope_end": example.scope_end.tolist(),
        "targets": [list(row) for row in targets],
        "num_tiles": len(example.tiles),
        "frame_times_s": frame_times_s(example),
        "text": "".join(decode(example.input_ids.tolist())),
    }


def frame_times_s(example: Example) -> list[float]:
    """Return when every frame is shown, in prompt order, also where several share a place."""
    return list(_times_s(example, example.tiles))


def check_learned(example: Example, *, image_token_id: int) -> None:
    """Refuse a sample from which nothing, or the wrong thing, would be learned.

    Raises:
        SampleError: a conversation supervises no token, or an image token is a target.
    """
    for number, where in enumerate(example.where):
        is_of_conversation = example.target_conversation == number
        if not is_of_conversation.any():
            raise SampleError(
                "nothing in this row is learned: no assistant turn with text",
                kind="empty_row",
                where=where,
                fix="give the row an answer",
            )
        if (example.target_ids[is_of_conversation] == image_token_id).any():
            raise SampleError(
                "an image token would be learned: the model would be taught to write <image>",
                where=where,
                fix="put the picture into a user's turn",
            )


def _token_runs(example: Example, decode: Decode, image_token_id: int) -> list[TokenRun]:
    """List the tokens, those of one image slot as one run."""
    ids = example.input_ids.tolist()
    texts = decode(ids)
    # Two slots always have a tag between them, so neighbouring image tokens are of one slot.
    groups = groupby(
        range(len(ids)), key=lambda place: -1 if ids[place] == image_token_id else place
    )
    tiles, sizes = iter(example.tiles), iter(example.slot_sizes)
    runs: list[TokenRun] = []
    for key, places in groups:
        start, *rest = places
        size = next(sizes, 1) if key == -1 else 0
        shown = list(islice(tiles, size))
        if len(shown) != size:
            raise ValueError(f"image tokens at {start}, and only {len(example.tiles)} tiles")
        runs.append(
            TokenRun(
                start=start,
                count=1 + len(rest),
                token_id=ids[start],
                text=texts[start],
                role=TokenRole(int(example.roles[start])),
                is_learned=bool(example.learned[start]),
                position_id=int(example.position_ids[start]),
                scope_end=int(example.scope_end[start]),
                tile=shown[0] if shown else None,
                times_s=_times_s(example, shown),
            )
        )
    if (unused := len(list(tiles))) > 0:
        raise ValueError(f"{unused} tiles have no image tokens")
    return runs


def _times_s(example: Example, shown: Sequence[TileRef]) -> tuple[float, ...]:
    """Return when the frames among some tiles are shown."""
    pairs = ((example.layouts[ref.medium], ref.tile) for ref in shown)
    return tuple(layout.times_s[tile] for layout, tile in pairs if isinstance(layout, Frames))


def _medium(
    example: Example, runs: Sequence[TokenRun], number: int, tiles: TilePixels | None
) -> InspectedPicture | InspectedClip:
    name, layout, places = (
        example.media[number].name,
        example.layouts[number],
        _places(runs, number),
    )
    sizes = tuple(runs[place].num_tiles for place in places)
    if tiles is not None and len(tiles) != sum(sizes):
        raise ValueError(f"{name}: {len(tiles)} tiles, its text has {sum(sizes)}")
    if not isinstance(layout, Frames):
        return InspectedPicture(name=name, grid=_grid_of(runs, places), tiles=tiles)
    if sum(sizes) != layout.num_tiles:
        raise ValueError(f"{name}: {layout.num_tiles} frames, its text has {sum(sizes)}")
    return InspectedClip(
        name=name,
        times_s=layout.times_s,
        duration_s=layout.duration_s,
        slot_sizes=sizes,
        tiles=tiles,
    )


def _places(runs: Sequence[TokenRun], medium: int) -> list[int]:
    """Return the places among the runs where a medium's tiles stand for the first time."""
    first = next(
        number for number, run in enumerate(runs) if run.tile == TileRef(medium=medium, tile=0)
    )
    places, num_tiles = [first], runs[first].num_tiles
    for number in range(first + 1, len(runs)):
        tile = runs[number].tile
        if tile is not None and (tile.medium != medium or tile.tile != num_tiles):
            break
        if tile is not None:
            places.append(number)
            num_tiles += runs[number].num_tiles
    return places


def _grid_of(runs: Sequence[TokenRun], places: Sequence[int]) -> Grid:
    """Read a picture's grid off its first appearance: a newline between two tiles ends a row."""
    row_ends = [
        place
        for place, (before, after) in enumerate(pairwise(places), start=1)
        if any("\n" in run.text for run in runs[before + 1 : after])
    ]
    if not row_ends:
        return Grid(rows=0, columns=0)
    grid = Grid(rows=len(row_ends), columns=row_ends[0])
    if grid.num_tiles != len(places):
        raise ValueError(
            f"{len(places)} tiles do not make {grid.rows} rows of {grid.columns} and a global view"
        )
    return grid


def _parts(
    example: Example, runs: Sequence[TokenRun]
) -> tuple[SamplePart | None, tuple[SamplePart, ...]]:
    """Cut the runs at the conversations' starts; a branch ends with its first token's scope."""

    def part(start: int, end: int, where: str | None) -> SamplePart:
        inside = tuple(run for run in runs if start <= run.start < end)
        return SamplePart(where=where, start=start, end=end, runs=inside)

    starts = example.conversation_starts
    ends = [int(example.scope_end[start]) for start in starts]
    if (*starts[1:], len(example.input_ids)) != tuple(ends):
        raise ValueError(f"conversations start at {list(starts)} and their scopes end at {ends}")
    trunk = part(0, starts[0], None) if starts[0] else None
    return trunk, tuple(
        part(start, end, where)
        for start, end, where in zip(starts, ends, example.where, strict=True)
    )


def _targets(example: Example, decode: Decode) -> tuple[InspectedTarget, ...]:
    ids = example.target_ids.tolist()
    return tuple(
        InspectedTarget(
            predict_from=place, target_id=token, text=text, weight=weight, conversation=owner
        )
        for place, token, text, weight, owner in zip(
            example.predict_from.tolist(),
            ids,
            decode(ids),
            example.target_weights.tolist(),
            example.target_conversation.tolist(),
            strict=True,
        )
    )
