"""Where in a row's text its listed pictures and clips go.

In a user's plain text `<image>` and `<video>` mark the places of pictures and clips where the row
lists some; without any mark, all of them go in front of the first user turn. In a row that lists
clips alone `<image>` marks their places too, as published sets of video questions write it. The
characters around a mark are kept exactly as written.

A source whose texts speak of `<image>` themselves (questions about HTML, say) marks places
distinctly: with `media_markers: distinct` they are `<|image_token|>` and `<|video_token|>`, and
everything else is text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from smolvlm.datasets.rows.media import Kind, ListedMedia
from smolvlm.datasets.rows.sources import MediaMarkers, SourceSpec
from smolvlm.errors import SampleError
from smolvlm.records import Block, Role, Turn

PLACEHOLDERS: Mapping[MediaMarkers, Mapping[Kind, str]] = {
    "plain": {"image": "<image>", "video": "<video>"},
    "distinct": {"image": "<|image_token|>", "video": "<|video_token|>"},
}
"""What marks the place of a picture or a clip, by the source's `media_markers`."""
_MARK = {
    "plain": re.compile("<(image|video)>"),
    "distinct": re.compile(r"<\|(image|video)_token\|>"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Marks, in a draft turn, where the next listed picture or clip goes."""

    kind: Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftTurn:
    """A turn as the row writes it: media are inline, or a `Place` to be filled from the list."""

    role: Role
    blocks: tuple[Block | Place, ...]


def has_marks(text: str, markers: MediaMarkers = "plain") -> bool:
    """Say whether a text marks the place of a picture or a clip."""
    return _MARK[markers].search(text) is not None


def split_at_marks(text: str, markers: MediaMarkers = "plain") -> tuple[str | Place, ...]:
    """Return the text's pieces with a `Place` for each mark; every other character is kept.

    "<image>\\nWhat?" gives (Place("image"), "\\nWhat?").
    """
    pieces: list[str | Place] = []
    for number, piece in enumerate(_MARK[markers].split(text)):
        if number % 2:
            pieces.append(Place(cast("Kind", piece)))
        elif piece:
            pieces.append(piece)
    return tuple(pieces)


def fill_places(
    drafts: Sequence[DraftTurn], listed: ListedMedia, *, spec: SourceSpec
) -> tuple[Turn, ...]:
    """Return the turns with the listed media in their places.

    Args:
        drafts: the row's turns, at least one of the user.
        listed: the media that the row lists, in order. With no place and nothing inline in the
            turns, all of them go in front of the first user turn, pictures before clips.
        spec: of the source.

    Raises:
        SampleError: not as many places of a kind as listed media of it.
    """
    blocks = [block for draft in drafts for block in draft.blocks if not isinstance(block, str)]
    if not blocks:
        in_front = (*listed.images, *listed.videos)
        turns = tuple(
            Turn(role=draft.role, blocks=cast("tuple[Block, ...]", draft.blocks))
            for draft in drafts
        )
        if not in_front:
            return turns
        first = next(number for number, turn in enumerate(turns) if turn.role == "user")
        return tuple(
            Turn(
                role=turn.role, blocks=(*in_front, *turn.blocks) if number == first else turn.blocks
            )
            for number, turn in enumerate(turns)
        )
    means: dict[Kind, Kind] = {"image": "image", "video": "video"}
    is_plain = spec.media_markers == "plain"
    if is_plain and listed.videos and not listed.images and Place("video") not in blocks:
        means["image"] = "video"
    places = [means[block.kind] for block in blocks if isinstance(block, Place)]
    kinds: tuple[Kind, ...] = ("image", "video")
    for kind in kinds:
        _check_number(places.count(kind), len(listed.of(kind)), kind, spec=spec)
    remaining = {kind: iter(listed.of(kind)) for kind in kinds}
    return tuple(
        Turn(
            role=draft.role,
            blocks=tuple(
                next(remaining[means[block.kind]]) if isinstance(block, Place) else block
                for block in draft.blocks
            ),
        )
        for draft in drafts
    )


def _check_number(num_places: int, num_listed: int, kind: Kind, *, spec: SourceSpec) -> None:
    if num_places == num_listed:
        return
    mark = PLACEHOLDERS[spec.media_markers][kind]
    marks = f"{num_places} {mark} placeholder{'' if num_places == 1 else 's'} in the user's text"
    what = f"{marks}, {num_listed} {kind}{'' if num_listed == 1 else 's'} listed"
    raise SampleError(
        what,
        kind="placeholder_mismatch",
        fix="make the two agree, or set `on_bad_sample: skip` on this source",
    )
