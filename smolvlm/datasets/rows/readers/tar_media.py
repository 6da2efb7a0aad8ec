"""The pictures and clips of a shard's row in the order that the row itself gives.

In: a row's fields and its media members. Out: the fields with members in place of their names. A
row's JSON may name its media, in `image`, `images`, `video`, `videos` and in typed blocks of its
messages; then its order counts, every name has a member (or a file below the source's folder of
media), and every member of that kind a name. Where it names none, the members are the row's media
in the shard's order.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from smolvlm.config.problems import shown_path, shown_text
from smolvlm.datasets.rows.depth import says_nothing
from smolvlm.datasets.rows.readers.streams import MAX_ROW_BYTES
from smolvlm.datasets.rows.sources import Columns, file_columns
from smolvlm.errors import SampleError
from smolvlm.records import ImageRef, Media

Kind = Literal["image", "video"]
_LISTS: Mapping[str, Kind] = {
    "image": "image",
    "images": "image",
    "video": "video",
    "videos": "video",
}
_NAME_KEYS = ("path", "url", "image", "video", "frames")
"""Keys of a mapping, a medium's or a typed block's, that name what it shows."""
_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardReading:
    """What a source says of its shards' members."""

    media_root: Path
    """Where a file lies that a row names and that is no member."""
    columns: Columns
    """Our name of a column -> its name in the rows."""
    not_read: frozenset[str] = frozenset()
    """Endings of members to leave alone, among other keys."""
    max_row_bytes: int = MAX_ROW_BYTES
    """Of a row's text members together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaMember:
    """A picture or clip of a shard."""

    name: str
    """As the shard has it, folders and all."""
    ending: str
    """What follows the first dot of its last part."""
    ref: Media

    @property
    def kind(self) -> Kind:
        return "image" if isinstance(self.ref, ImageRef) else "video"

    def answers(self, name: str) -> bool:
        """Say whether a row means it by a name: its own, its base name, or its ending."""
        plain, member = PurePosixPath(name), PurePosixPath(self.name)
        return (
            plain == member
            or plain.name == member.name
            or name.lower().lstrip(".") in (self.ending.lower(),)
        )


@dataclass(kw_only=True, slots=True)
class _Matching:
    """Puts members in place of names, and notes which were named."""

    members: Sequence[MediaMember]
    media_root: Path
    named: set[str] = field(default_factory=set)
    kinds: set[Kind] = field(default_factory=set)

    def replaced(self, value: Any, kind: Kind) -> Any:
        """Return a value with members in place of the names in it."""
        if isinstance(value, str):
            return self._member(value, kind)
        if isinstance(value, list):
            return [self.replaced(own, kind) for own in value]
        if isinstance(value, dict):
            return self._mapping(value, kind)
        return value

    def _mapping(self, value: dict[str, Any], kind: Kind) -> Any:
        found = {key: value[key] for key in _NAME_KEYS if value.get(key) is not None}
        if len(found) != 1:
            return value
        ((key, name),) = found.items()
        medium = self.replaced(name, kind)
        if medium is name or medium == name:
            return value
        rest = {
            own: there
            for own, there in value.items()
            if own != key and not (own == "bytes" and says_nothing(there))
        }
        # What reads a row's media takes a member by itself, or within a mapping with its bounds.
        return {**rest, key: medium} if rest or isinstance(medium, list) else medium

    def _member(self, name: str, kind: Kind) -> Any:
        found = [member for member in self.members if member.name == name] or [
            member for member in self.members if member.answers(name)
        ]
        self.kinds.add(kind)
        if len(found) == 1:
            self.named.add(found[0].name)
            self.kinds.add(found[0].kind)
            return found[0].ref
        if _ADDRESS.match(name) or (not found and _is_file(self.media_root, name)):
            return name
        there = ", ".join(f"`{shown_path(member.name)}`" for member in found or self.members)
        what = f"the row lists `{shown_path(name)}`, which "
        if found:
            what += f"may be each of {there}"
            raise SampleError(what, kind="missing_media", fix="list whole member names")
        what += f"is no member of it; its members are {there or 'none'}"
        fix = (
            "name the member, or take the list out of the row's JSON: then the shard's order counts"
        )
        raise SampleError(what, kind="missing_media", fix=fix)


def with_media(
    fields: Mapping[str, Any],
    members: Sequence[MediaMember],
    *,
    media_root: Path,
    columns: Columns,
) -> dict[str, Any]:
    """Return a row with its media in their places.

    Args:
        fields: of the row's text members.
        members: its media, in the shard's order.
        media_root: where a file may lie that is no member.
        columns: our name of a column -> its name in the file.

    Raises:
        SampleError: a name without a member, or a member without a name.
    """
    keys: dict[str, Kind] = {
        name: kind for ours, kind in _LISTS.items() for name in file_columns(columns, ours)
    }
    matching = _Matching(members=members, media_root=media_root)
    row: dict[str, Any] = {}
    for key, value in fields.items():
        kind = keys.get(key)
        row[key] = _in_blocks(value, matching) if kind is None else matching.replaced(value, kind)
    kinds: tuple[Kind, ...] = ("image", "video")
    for kind in kinds:
        left = [own for own in members if own.kind == kind and own.name not in matching.named]
        if left and kind in matching.kinds:
            what = f"the row's JSON lists media, but not `{shown_path(left[0].name)}`"
            fix = "list it too, or take it out of the shard"
            raise SampleError(what, kind="missing_media", fix=fix)
        if left:
            _put(row, left, columns)
    return row


def _put(row: dict[str, Any], members: Sequence[MediaMember], columns: Columns) -> None:
    """Put a row's media under the key for one, or for several; an empty list there gives way.

    Raises:
        SampleError: the row has something else there.
    """
    kind, media = members[0].kind, [member.ref for member in members]
    one, several = (file_columns(columns, name)[0] for name in (kind, f"{kind}s"))
    is_only_list = f"{kind}s" in columns and kind not in columns
    for key in (several,) if is_only_list else (one, several):
        if not says_nothing(row.pop(key, None)):
            raise _no_names(key, members)
    if is_only_list:
        row[several] = media
        return
    is_one = len(media) == 1 or (kind in columns and f"{kind}s" not in columns)
    row[one if is_one else several] = media[0] if len(media) == 1 else media


def _no_names(key: str, members: Sequence[MediaMember]) -> SampleError:
    name = shown_path(members[0].name)
    fix = (
        f"list the members' names there, `{name}`, or take the key out of the row's JSON: then "
        "the shard's order counts"
    )
    what = f"the row's `{shown_text(key)}` names none of its members"
    return SampleError(what, kind="missing_media", fix=fix)


def _in_blocks(value: Any, matching: _Matching) -> Any:
    """Return a list of messages with members in place of the names in their typed blocks."""
    if not isinstance(value, list):
        return value
    return [
        {**message, "content": [_block(own, matching) for own in message["content"]]}
        if isinstance(message, dict) and isinstance(message.get("content"), list)
        else message
        for message in value
    ]


def _block(block: Any, matching: _Matching) -> Any:
    if not isinstance(block, dict) or block.get("type") not in ("image", "video"):
        return block
    kind: Kind = block["type"]
    keys = [key for key in (kind, "path", "url") if block.get(key) is not None]
    if len(keys) != 1:
        return block
    return {**block, keys[0]: matching.replaced(block[keys[0]], kind)}


def _is_file(media_root: Path, name: str) -> bool:
    try:
        return (media_root / name).exists()
    except (OSError, ValueError):  # a name too long, or with a null byte
        return False
