"""WebDataset shards: the members of a tar file that share a name up to its first dot are one row.

Nothing is unpacked: each row knows where its members' bytes lie, pictures are read from there when
they are decoded. A `.json` member holds the row's fields, other text members are fields named by
their ending, and media take the place of the row's `image` or `video` (one), `images` or `videos`
(several, in the shard's order).
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from smolvlm.errors import SampleError
from smolvlm.media.kinds import is_clip_ending, is_picture_ending
from smolvlm.records import ImageRef, VideoRef

MAX_MEMBERS = 20_000_000
MAX_TEXT_BYTES = 16 << 20
MAX_MEDIA_BYTES = 4 << 30

Member = tuple[str, int, int]
"""(ending, offset, size in bytes) within the shard."""


def tar_index(path: Path, *, label: str) -> Iterator[tuple[int, bytes]]:
    """Yield (row number, JSON text of its key and members) of a shard; its headers alone are read.

    Raises:
        SampleError: not a plain tar file, cut short, or a member without a name's ending.
    """
    number, key, members = 0, "", []
    try:
        with tarfile.open(path, "r:") as shard:
            for count, info in enumerate(shard):
                if count >= MAX_MEMBERS:
                    what = f"more than {MAX_MEMBERS:,} members"
                    raise SampleError(what, kind="bad_file", where=label, fix="split the shard")
                if not info.isreg():
                    continue
                own_key, ending = _split_name(info.name)
                if own_key != key and members:
                    number += 1
                    yield number, _as_json(key, members)
                    members = []
                key = own_key
                members.append((ending, info.offset_data, info.size))
            _check_end(path, shard.offset, label=label)
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        fix = "give a plain .tar (not compressed: rows are read in any order)"
        what = f"not a tar file, or cut short: {error}"
        raise SampleError(what, kind="bad_file", where=label, fix=fix) from None
    if members:
        yield number + 1, _as_json(key, members)


def _check_end(path: Path, end: int, *, label: str) -> None:
    """Refuse a shard whose members are not followed by the block of zeros that ends a tar file.

    `tarfile` takes a header that is cut off or damaged, after the first, for the end, and would
    lose what follows.
    """
    with path.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            what = (
                f"the shard is cut short, or damaged at byte {end:,}: no member and no end mark "
                f"there"
            )
            raise SampleError(
                what, kind="bad_file", where=label, fix="copy it again, or write it anew"
            )


def _split_name(name: str) -> tuple[str, str]:
    """Return ("images/0001", "jpg") for "images/0001.jpg": the ending begins at the last folder's
    first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _as_json(key: str, members: list[Member]) -> bytes:
    return json.dumps({"key": key, "members": members}).encode()


def read_tar_row(path: Path, row: Mapping[str, list[Member]]) -> dict[str, object]:
    """Return the fields of a row; its pictures are named, not read.

    Args:
        path: the shard.
        row: as `tar_index` wrote it.

    Raises:
        SampleError: a member is too large, or is not the text that it should be.
    """
    fields: dict[str, object] = {}
    pictures: list[ImageRef] = []
    clips: list[VideoRef] = []
    for ending, offset, size in row["members"]:
        kind = ending.rpartition(".")[2]
        if is_picture_ending(kind):
            _check_size(size, MAX_MEDIA_BYTES, ending)
            pictures.append(ImageRef(path=path, span=(offset, size)))
        elif is_clip_ending(kind):
            _check_size(size, MAX_MEDIA_BYTES, ending)
            clips.append(VideoRef(path=path, span=(offset, size)))
        else:
            _check_size(size, MAX_TEXT_BYTES, ending)
            fields |= _text_fields(path, ending, offset, size)
    if len(pictures) == 1:
        fields.pop("images", None)
        fields["image"] = pictures[0]
    elif pictures:
        fields.pop("image", None)
        fields["images"] = pictures
    if len(clips) == 1:
        fields.pop("videos", None)
        fields["video"] = clips[0]
    elif clips:
        fields.pop("video", None)
        fields["videos"] = clips
    return fields


def _text_fields(path: Path, ending: str, offset: int, size: int) -> dict[str, object]:
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    try:
        text = data.decode("utf-8-sig")
        if ending.rpartition(".")[2] != "json":
            return {ending: text}
        fields = json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # no UTF-8, no JSON, a number of too many digits, nested too deeply
        raise SampleError(
            f"member .{ending} cannot be read: {error}", fix="write the shard anew"
        ) from None
    if not isinstance(fields, dict):
        raise SampleError(f"member .{ending} is no JSON object", fix="write the row as {...}")
    return fields


def _check_size(size: int, limit: int, ending: str) -> None:
    if size > limit:
        raise SampleError(
            f"member .{ending} has {size:,} bytes, more than {limit:,}", fix="shrink it"
        )
