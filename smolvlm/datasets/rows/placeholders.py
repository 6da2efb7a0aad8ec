"""The listed pictures and clips of a row, put where its text says.

In a user's text marks are the places of pictures and clips where the row lists some (`marks.py`);
without any mark, all of them go in front of the first user turn. In a row that lists clips alone
`<image>` marks their places too, as published sets of video questions write it. Numbered marks are
places where they name each listed picture once. A mark of any other spelling is an error while the
media have no place: it would be learned as text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from smolvlm.datasets.rows.marks import (
    PLACEHOLDERS,
    Place,
    mark_numbers,
    other_marks,
    split_at_numbers,
)
from smolvlm.datasets.rows.media import Kind, ListedMedia
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.records import Block, Media, Role, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftTurn:
    """A turn as the row writes it: media are inline, or a `Place` to be filled from the list."""

    role: Role
    blocks: tuple[Block | Place, ...]
    weight: float = 1.0

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(block for block in self.blocks if isinstance(block, str))


def has_places(drafts: Iterable[DraftTurn]) -> bool:
    """Say whether the turns hold media, or say where they go."""
    return any(not isinstance(block, str) for draft in drafts for block in draft.blocks)


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
    if not has_places(drafts):
        in_front = (*listed.images, *listed.videos)
        return _turns(_with_media_in_front(drafts, in_front) if in_front else drafts)
    places = [block for draft in drafts for block in draft.blocks if isinstance(block, Place)]
    if _images_mean_clips(places, listed, spec):
        places = [Place("video") for _ in places]
    kinds: tuple[Kind, ...] = ("image", "video")
    for kind in kinds:
        num_places = sum(place.kind == kind for place in places)
        _check_number(num_places, len(listed.of(kind)), kind, spec=spec)
        places = _settled(places, kind)
    media = iter(_media_of(places, listed))
    filled = [
        replace(
            draft,
            blocks=tuple(
                next(media) if isinstance(block, Place) else block for block in draft.blocks
            ),
        )
        for draft in drafts
    ]
    return _turns(filled)


def _settled(places: Sequence[Place], kind: Kind) -> list[Place]:
    """Return the places, those of a kind numbered from 1: blocks count their media from 0 or 1.

    Raises:
        SampleError: the numbers do not name each medium once.
    """
    numbers = [place.number for place in places if place.kind == kind]
    if all(number is None for number in numbers):
        return list(places)
    given = sorted(number for number in numbers if number is not None)
    first = given[0]
    if first not in (1, 2) or given != list(range(first, first + len(numbers))):
        shown = ", ".join("none" if number is None else str(number - 1) for number in numbers[:8])
        what = f"the numbers of the {kind} blocks, {shown}, do not name each listed {kind} once"
        fix = "count them from 0 (or 1), each once, or leave the numbers out"
        raise SampleError(what, kind="placeholder_mismatch", fix=fix)
    return [
        replace(place, number=place.number - first + 1)
        if place.kind == kind and place.number is not None
        else place
        for place in places
    ]


def _images_mean_clips(places: Sequence[Place], listed: ListedMedia, spec: SourceSpec) -> bool:
    return (
        spec.media_markers == "plain"
        and bool(listed.videos)
        and not listed.images
        and all(place.kind == "image" for place in places)
    )


def _media_of(places: Sequence[Place], listed: ListedMedia) -> list[Media]:
    """Return the medium of each place: the next of its kind, or the one of its number."""
    remaining = {"image": iter(listed.images), "video": iter(listed.videos)}
    return [
        next(remaining[place.kind])
        if place.number is None
        else listed.of(place.kind)[place.number - 1]
        for place in places
    ]


def _turns(drafts: Iterable[DraftTurn]) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    for draft in drafts:
        blocks = tuple(block for block in draft.blocks if not isinstance(block, Place))
        assert len(blocks) == len(draft.blocks), "every place is filled"
        turns.append(Turn(role=draft.role, blocks=blocks, weight=draft.weight))
    return tuple(turns)


def _with_media_in_front(drafts: Sequence[DraftTurn], media: tuple[Media, ...]) -> list[DraftTurn]:
    first = next(number for number, draft in enumerate(drafts) if draft.role == "user")
    return [
        replace(draft, blocks=(*media, *draft.blocks)) if number == first else draft
        for number, draft in enumerate(drafts)
    ]


def with_numbered_places(
    drafts: Sequence[DraftTurn], listed: ListedMedia, spec: SourceSpec
) -> Sequence[DraftTurn]:
    """Return the turns with places for numbered marks that name each listed picture once.

    Turns that say where media go, and sources that mark places distinctly, are left as they are.

    Raises:
        SampleError: the user's text holds other marks, or numbers that do not fit the pictures.
    """
    if has_places(drafts) or not len(listed) or spec.media_markers != "plain":
        return drafts
    asked = [text for draft in drafts if draft.role == "user" for text in draft.texts]
    strange = [mark for text in asked for mark in other_marks(text)]
    if not strange:
        return drafts
    numbers = sorted(number for text in asked for number in mark_numbers(text))
    fits = numbers == list(range(1, len(listed.images) + 1)) and not listed.videos
    if not fits or len(numbers) != len(strange):
        marks = ", ".join(f"`{mark}`" for mark in dict.fromkeys(strange[:3]))
        what = (
            f"{marks} in the user's text, while nothing says where the row's media go: it would "
            "be read as text"
        )
        fix = (
            "write `<image>` or `<video>` in the places of the media; or, if it is no mark, set "
            "`media_markers: distinct` on the source"
        )
        raise SampleError(what, kind="placeholder_mismatch", fix=fix)
    keeps = spec.keeps_mark_newlines

    def split(block: Block | Place) -> tuple[Block | Place, ...]:
        if isinstance(block, str):
            return split_at_numbers(block, keeps_newlines=keeps)
        return (block,)

    return [
        replace(draft, blocks=tuple(piece for block in draft.blocks for piece in split(block)))
        if draft.role == "user"
        else draft
        for draft in drafts
    ]


def _check_number(num_places: int, num_listed: int, kind: Kind, *, spec: SourceSpec) -> None:
    if num_places == num_listed:
        return
    mark = PLACEHOLDERS[spec.media_markers][kind]
    marks = f"{num_places} {mark} placeholder{'' if num_places == 1 else 's'} in the user's turns"
    what = f"{marks}, {num_listed} {kind}{'' if num_listed == 1 else 's'} listed"
    raise SampleError(
        what,
        kind="placeholder_mismatch",
        fix=f"make the two agree: `{mark}` in a user's text and `{{type: {kind}}}` blocks are the "
        f"places, `{kind}` and `{kind}s` list what they show",
    )
