"""One block of a turn's content: text with its marks, a medium inline, or a listed one's place."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from smolvlm.config.problems import shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.clip_bounds import has_bounds, take_bounds
from smolvlm.datasets.rows.fields import Fields, Reading, is_absent
from smolvlm.datasets.rows.keys import INDEX_KEYS, RATE_KEYS
from smolvlm.datasets.rows.marks import Place, has_marks, split_at_marks
from smolvlm.datasets.rows.media import Kind
from smolvlm.datasets.rows.references import image_ref, video_ref
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.datasets.rows.texts import answer_text, as_text, kind_of
from smolvlm.errors import SampleError
from smolvlm.records import Block, Role

BlockKind = Literal["text", "image", "video"]
_BLOCK_TYPES: Mapping[str, BlockKind] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
}
_MEDIUM_KEYS = ("image", "video", "image_url", "video_url", "source", "path", "url", "file")
"""Of a block: what names its picture or clip."""
_BYTES_KEYS = ("bytes", "base64", "data")

_KEYS_OF_KIND: Mapping[BlockKind, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("image", "image_url"),
    "video": ("video", "video_url"),
}
"""What a block without a type is, by the one of these keys that it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockContext:
    """Where a block stands."""

    role: Role
    marks_are_places: bool
    """Whether a mark in a user's text block is the place of a listed medium."""
    place: str
    """What stands before the turn's keys in messages: `messages[].`."""
    reading: Reading


def block_kind(block: Fields | Mapping[str, object]) -> BlockKind | None:
    """Return what a block is: what its `type` says, or without one the key that it has; None where
    neither tells."""
    value = block.peek if isinstance(block, Fields) else block.get
    written = value("type")
    if written is not None:
        return _BLOCK_TYPES.get(written) if isinstance(written, str) else None
    kinds: list[BlockKind] = [
        kind
        for kind, keys in _KEYS_OF_KIND.items()
        if not all(is_absent(value(key)) for key in keys)
    ]
    return kinds[0] if len(kinds) == 1 else None


def has_typed_place(message: Mapping[str, object]) -> bool:
    """Say whether a message has a block that is the place of a listed medium."""
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(block, dict)
        and block_kind(block) in ("image", "video")
        and all(block.get(key) is None for key in (*_MEDIUM_KEYS, *_BYTES_KEYS))
        for block in content
    )


def text_blocks(text: str, has_places: bool, spec: SourceSpec) -> tuple[str | Place, ...]:
    """Return a text's pieces, with the places that its marks name where `has_places`."""
    if has_places and has_marks(text, spec.media_markers):
        return split_at_marks(text, spec.media_markers, keeps_newlines=spec.keeps_mark_newlines)
    return (text,) if text else ()


def typed_block(block: object, context: BlockContext) -> tuple[Block | Place, ...]:
    """Return one block: text with its marks, a medium inline, or the place of the next.

    A plain text among the blocks is a block of text.

    Raises:
        SampleError: a block of no known type, one that its turn cannot have, or damage within.
    """
    if isinstance(block, str):
        block = {"type": "text", "text": block}
    if not isinstance(block, dict):
        raise SampleError(
            f"a content block is {kind_of(block)}", fix="write blocks as {type: text, text: ...}"
        )
    fields = context.reading.fields(block, f"{context.place}content[].")
    kind = block_kind(fields)
    written = fields.take("type")
    if kind is None:
        fix = (
            did_you_mean(str(written), ("text", "image", "video"))
            or "a block's type is text, image or video"
        )
        if isinstance(written, str) and "audio" in written:
            fix = "take the sound out: no SmolVLM model hears it"
        shown = shown_value(written) if written is not None else "none"
        raise SampleError(f"unknown type of content block: {shown}", fix=fix)
    role = context.role
    if kind == "text":
        is_answer = role == "assistant"
        value = fields.take("text")
        text = (answer_text if is_answer else as_text)(value, "a text block's `text`")
        has_places = role == "user" and context.marks_are_places
        return text_blocks(text, has_places, context.reading.spec)
    if role != "user":
        raise SampleError(
            f"a {'picture' if kind == 'image' else 'clip'} in the {role}'s turn",
            fix="move it to a user turn",
        )
    return (_inline_medium(fields, kind, context.reading),)


def _inline_medium(fields: Fields, kind: Kind, reading: Reading) -> Block | Place:
    if fields.peek("text") in (None, ""):
        fields.take("text")
    key, value = fields.take_one(_MEDIUM_KEYS, what="the medium")
    data_key, data = fields.take_one(_BYTES_KEYS, what="the medium's bytes")
    if data is not None:  # {bytes, path}: the path is their name
        if value is not None and not isinstance(value, str):
            what = f"a block has both `{data_key}` and `{key}`, which is no file's name"
            raise SampleError(what, fix="keep one of the two")
        value = data
    if kind == "video" and value is not None:
        return video_ref(_with_rate(value, fields), reading, take_bounds(fields))
    if has_bounds(fields):
        raise SampleError(
            "`start_s` or `end_s` in a block that names no clip",
            fix="write them with the clip's path",
        )
    return _place(fields, kind) if value is None else image_ref(value, reading)


def _place(fields: Fields, kind: Kind) -> Place:
    """Return the place of the next listed medium, or of the one whose index the block gives.

    Raises:
        SampleError: an index that is no whole number.
    """
    key, index = fields.take_one(INDEX_KEYS, what="which of the listed media is shown")
    if index is None:
        return Place(kind)
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        what = f"`{fields.place}{key}` is {shown_value(index)}, no number of a listed {kind}"
        raise SampleError(what, fix="write a whole number, or leave it out")
    return Place(kind, index + 1)


def _with_rate(value: object, fields: Fields) -> object:
    """Return a list of frames with the rate that the block gives for them."""
    rate = fields.given(RATE_KEYS)
    if isinstance(value, list) and rate:
        return {"frames": value, rate[0]: fields.take(rate[0])}
    return value
